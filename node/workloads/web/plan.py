"""When requests are due, who sends them, and what measured numbers mean: the arithmetic of a load test (pure)."""

from __future__ import annotations

from collections.abc import Sequence

#: What a histogram of times tells, per cent.
PERCENTILES = (50.0, 90.0, 99.0, 99.9)
#: Also told, to draw a curve from.
CURVE = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 100.0)
#: A generator that was on, or waiting for, a processor longer than this share of the time was no faster than it is.
BUSY_SHARE = 0.85
#: In open mode: when one request in a hundred left later than this although a connection was free, ms.
LATE_MS = 5.0
MAX_GENERATORS = 16
MAX_SERVERS = 16


def due_ns(number: int, index: int, count: int, start_ns: int, rate_per_s: float) -> int:
    """When request `number` (from 0) of generator `index` of `count` is due: they take turns, evenly spaced."""
    return start_ns + round((number * count + index) * 1e9 / rate_per_s)


def due_before(to_ns: int, index: int, count: int, start_ns: int, rate_per_s: float) -> int:
    """How many requests of generator `index` of `count` are due before `to_ns`."""
    number = max(0, int(((to_ns - start_ns) * rate_per_s / 1e9 - index) / count))
    while number and due_ns(number - 1, index, count, start_ns, rate_per_s) >= to_ns:
        number -= 1
    while due_ns(number, index, count, start_ns, rate_per_s) < to_ns:
        number += 1
    return number


def shares(total: int, count: int) -> list[int]:
    """`total` in `count` parts that differ by one at most."""
    return [total // count + (part < total % count) for part in range(count)]


def processes(cores: int, connections: int, own_server: bool, servers: int | None) -> tuple[int, int]:
    """(load generators, server processes): half the cores each, for a request costs a generator 18 µs of CPU and a
    server process 30, and the generator should not be the limit."""
    if not own_server:
        return max(1, min(cores, connections, MAX_GENERATORS)), 0
    generators = max(1, min((cores + 1) // 2, connections, MAX_GENERATORS))
    return generators, servers or max(1, min(cores - generators, connections, MAX_SERVERS))


def judged(busy_shares: Sequence[float], late_p99_ms: float | None) -> str | None:
    """What the load generator, not the server, may have added to the figures, in words; None when it kept up."""
    busiest = max(busy_shares, default=0.0)
    if busiest > BUSY_SHARE:
        return (
            f"The load generator was saturated: one of its processes needed a processor {busiest:.0%} of the time. "
            "The server can do at least what the figures say, maybe more."
        )
    if late_p99_ms is not None and late_p99_ms > LATE_MS:
        return (
            f"The load generator was late: one request in a hundred left {late_p99_ms:.1f} ms after it could have. "
            "The latencies include that; the server's own are lower."
        )
    return None
