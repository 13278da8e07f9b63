"""The arithmetic of a load test: when requests are due, which process sends them, how to assess the figures (pure)."""

from __future__ import annotations

from collections.abc import Sequence

#: The percentiles of a latency in the result.
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
#: The percentiles of the latency curve in the result.
CURVE = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)
#: A generator that ran on, or waited for, a processor for more than this share of the time is saturated.
BUSY_SHARE = 0.85
#: In open mode, a test is saturated when at its end more than this share of the requests that were due is not sent.
UNSENT_SHARE = 0.01
#: In open mode, a generator is late when 1 % of the requests left later than this although a connection was free.
LATE_MS = 5.0
MAX_GENERATORS = 16
MAX_SERVERS = 16


def due_ns(number: int, index: int, count: int, start_ns: int, rate_per_s: float) -> int:
    """When request `number` (from 0) of generator `index` of `count` is due: evenly spaced, generators in turn."""
    return start_ns + round((number * count + index) * 1e9 / rate_per_s)


def due_before(to_ns: int, index: int, count: int, start_ns: int, rate_per_s: float) -> int:
    """The number of requests of generator `index` of `count` that are due before `to_ns`."""
    number = max(0, int(((to_ns - start_ns) * rate_per_s / 1e9 - index) / count))
    while number and due_ns(number - 1, index, count, start_ns, rate_per_s) >= to_ns:
        number -= 1
    while due_ns(number, index, count, start_ns, rate_per_s) < to_ns:
        number += 1
    return number


def shares(total: int, count: int) -> list[int]:
    """`total` split into `count` parts that differ by at most one."""
    return [total // count + (part < total % count) for part in range(count)]


def processes(cores: int, connections: int, own_server: bool, servers: int | None) -> tuple[int, int]:
    """(load generators, server processes): half of the cores each. A request takes 18 µs of CPU in a generator and
    30 µs in a server process, so that the generators are not the bottleneck."""
    if not own_server:
        return max(1, min(cores, connections, MAX_GENERATORS)), 0
    generators = max(1, min((cores + 1) // 2, connections, MAX_GENERATORS))
    return generators, servers or max(1, min(cores - generators, connections, MAX_SERVERS))


def is_behind(unsent: int, due: int) -> bool:
    """Whether more than UNSENT_SHARE of the requests that were due, and more than one, could not be sent in time."""
    return unsent > max(1.0, due * UNSENT_SHARE)


def assess(busy_shares: Sequence[float], late_p99_ms: float | None, unsent: int = 0, due: int = 0) -> str | None:
    """A note when the load could not be offered, or the load generator affected the figures; None when it kept up.

    `unsent`: how many of the `due` requests had not been sent at the end of the measurement.
    """
    busiest = max(busy_shares, default=0.0)
    if busiest > BUSY_SHARE:
        return (
            f"The load generator was saturated: one of its processes needed a processor {busiest:.0%} of the time. "
            "The server may be faster than the figures."
        )
    if is_behind(unsent, due):
        return (
            f"The load could not be offered: {unsent} of {due} requests that were due had not been sent at the end, "
            "because no connection was free. The server answers no faster, or the test needs more connections."
        )
    if late_p99_ms is not None and late_p99_ms > LATE_MS:
        return (
            f"The load generator was late: 1 % of the requests left {late_p99_ms:.1f} ms or more after they could "
            "have. The latencies include this delay; those of the server are lower."
        )
    return None
