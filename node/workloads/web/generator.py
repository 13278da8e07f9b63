"""A load generator process: keeps connections busy or sends requests when they are due, and measures the responses.

`node.workloads.web.processes` runs it as `python -m node.workloads.web.generator`; it ends when its input closes. Its
loop waits with `select` on the selector's descriptor, with microsecond resolution: event loops wait in whole
milliseconds, longer than most responses take. Latency is measured from the time when a request was *due*. A request
without a response counts in the histogram with the time waited; a refused one, or one with a wrong response, counts
only as an error.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import select
import selectors
import sys
import time
from collections import Counter, deque
from typing import Any, NamedTuple

from hdrh.histogram import HdrHistogram

from node.workloads.web.connection import Connection, Expected
from node.workloads.web.plan import due_before, due_ns, shares

clock = time.monotonic_ns

TICK_NS = 20_000_000
REPORT_NS = 250_000_000
#: The delay after a failure to connect; it doubles with each failure, up to 64 times this.
RETRY_NS = 5_000_000
#: The largest value in a histogram, µs.
LONGEST_US = 1_000_000_000
DIGITS = 3
TIMED_OUT, NEVER_SENT = "no response in time", "never sent"


class Load:
    """One process's share of a load test. `order`: see `web_server_load.orders`."""

    def __init__(self, order: dict[str, Any], selector: selectors.DefaultSelector) -> None:
        self._selector = selector
        self._rate, self._index, self._count = order["rate_per_s"], order["index"], order["count"]
        self._timeout_ns = round(order["timeout_s"] * 1e9)
        self._left = order["requests"]
        #: Whether the requests of the measurement are known by when they were due; else by when they ended.
        self._has_schedule = self._rate is not None or self._left is not None
        body = order["body"]
        expected = Expected(order["status"], None if body is None else base64.b64decode(body), order["sha256"])
        self._request_bytes = len(base64.b64decode(order["request"]))
        address, request = (order["address"], order["port"]), base64.b64decode(order["request"])
        self._connections = [
            Connection(address, request, expected, order["keep_alive"], selector, self._ended)
            for _ in range(order["connections"])
        ]
        self._free: deque[Connection] = deque(self._connections)
        self._parked: list[tuple[int, Connection]] = []
        self._number = 0
        self._latency, self._late, self._served = (HdrHistogram(1, LONGEST_US, DIGITS) for _ in range(3))
        self._errors: Counter[str] = Counter()
        self._right = self._right_after = self._queued = self._wrong = 0
        self._sent = self._sent_in_time = 0
        self._last_ns = 0
        self._is_closing = False

    def run(self, start_ns: int, from_ns: int, to_ns: int) -> dict[str, Any]:
        """Send requests from `start_ns` to `to_ns`, measured from `from_ns`, then wait for pending responses; returns
        the measurements."""
        self._start_ns, self._from_ns, self._to_ns = start_ns, from_ns, to_ns
        tick_at = report_at = 0
        before: CpuTime | None = None
        after: CpuTime | None = None
        waiter = self._selector.fileno()
        while True:
            now = clock()
            if before is None and now >= from_ns:
                before = _cpu_time(now)
                self._end_warm_up()
            if after is None and now >= to_ns:
                after = _cpu_time(now)
            if now >= tick_at:
                tick_at = now + TICK_NS
                self._tick(now)
                if now >= report_at:
                    report_at = now + REPORT_NS
                    _print({"done": self._right + sum(self._errors.values())})
            self._start_due(now)
            if self._is_over(now):
                break
            wait_ns = max(0, min(tick_at, self._wakes_at(now)) - clock())
            if wait_ns:
                select.select((waiter,), (), (), wait_ns / 1e9)
            for key, events in self._selector.select(0):
                key.data.ready(events)
                if self._free:
                    self._start_due(clock())
        after = after or _cpu_time(now)
        return self._record_of(before or after, after, now)

    def _end_warm_up(self) -> None:
        """Drop the requests of the warm-up that were not sent: they would take the place of measured ones."""
        if self._rate is not None:
            first = due_before(self._from_ns, self._index, self._count, self._start_ns, self._rate)
            self._number = max(self._number, first)

    # --- sending

    def _due(self, now: int) -> int | None:
        """When the next request was due, unless that is in the future; None: send nothing now."""
        if self._is_closing:
            return None
        if self._rate is None:
            return now if self._start_ns <= now < self._to_ns and self._left != 0 else None
        due = due_ns(self._number, self._index, self._count, self._start_ns, self._rate)
        return due if due <= now and due < self._to_ns else None

    def _wakes_at(self, now: int) -> int:
        if now < self._start_ns:
            return self._start_ns
        if self._rate is None or not self._free or now >= self._to_ns:
            return now + TICK_NS
        return due_ns(self._number, self._index, self._count, self._start_ns, self._rate)

    def _start_due(self, now: int) -> None:
        while self._free and (due := self._due(now)) is not None:
            connection = self._free.popleft()  # the one that has been free longest
            if due >= self._from_ns and self._rate is not None:
                # Until a connection is free, a request waits for the server; after that, for this process.
                self._queued += connection.free_ns > due
                self._late.record_value(max(1, (now - max(due, connection.free_ns)) // 1000))
            self._send(connection, due, now)
            now = clock()

    def _send(self, connection: Connection, due: int, now: int) -> None:
        self._number += 1
        self._sent += 1
        if due >= self._from_ns:
            self._sent_in_time += now <= self._to_ns
            if self._left is not None:
                self._left -= 1
        connection.start(due, now)

    def _is_over(self, now: int) -> bool:
        if now >= self._to_ns + self._timeout_ns:
            return True
        spent = self._left == 0 or now >= self._to_ns
        return spent and self._due(now) is None and not any(connection.busy for connection in self._connections)

    # --- measuring

    def _ended(self, connection: Connection, error: str | None) -> None:
        now = clock()
        self._wrong += error is not None and error.startswith(("status", "wrong"))
        if (connection.due_ns if self._has_schedule else now) >= self._from_ns:
            self._last_ns = now
            self._account(connection, error, now)
        if connection.failures:
            self._parked.append((now + (RETRY_NS << min(connection.failures - 1, 6)), connection))
        else:
            connection.free_ns = now
            self._free.append(connection)

    def _account(self, connection: Connection, error: str | None, now: int) -> None:
        if error is not None:
            self._errors[error] += 1
        elif now <= self._to_ns:
            self._right += 1
        else:
            self._right_after += 1
        if error is None or error == TIMED_OUT:
            self._record(now - connection.due_ns)
            if self._rate is not None:
                self._served.record_value(min(max(1, (now - connection.sent_ns) // 1000), LONGEST_US))

    def _record(self, latency_ns: int, count: int = 1) -> None:
        self._latency.record_value(min(max(1, latency_ns // 1000), LONGEST_US), count)

    def _tick(self, now: int) -> None:
        for connection in self._connections:
            if connection.busy and now - connection.sent_ns > self._timeout_ns:
                connection.fail(TIMED_OUT)
        ready = [connection for at, connection in self._parked if at <= now]
        if ready:
            self._parked = [parked for parked in self._parked if parked[0] > now]
            for connection in ready:
                connection.free_ns = now
                self._free.append(connection)

    def _give_up(self, now: int) -> None:
        """Count pending requests, and those that were due but never sent."""
        self._is_closing = True
        for connection in self._connections:
            if connection.busy:
                connection.fail(TIMED_OUT)
        if self._rate is None:
            return
        turn = (self._index, self._count, self._start_ns, self._rate)
        number = max(self._number, due_before(self._from_ns, *turn))
        left = max(0, due_before(self._to_ns, *turn) - number)
        self._errors[NEVER_SENT] += left
        # In at most a thousand groups; a group counts with the wait of its first request.
        for part in shares(left, min(left, 1000)) if left else ():
            self._record(now - due_ns(number, *turn), part)
            number += part

    def _record_of(self, before: CpuTime, after: CpuTime, now: int) -> dict[str, Any]:
        """What happened: the fields of `figures.Record`, and the histograms."""
        self._give_up(now)
        for connection in self._connections:
            connection.close()
        if self._left == 0:  # all requests were sent: the measurement ends with the last response
            self._right, self._right_after = self._right + self._right_after, 0
        measured_ns = (self._last_ns if self._left == 0 else self._to_ns) - self._from_ns
        return {
            "right": self._right,
            "right_after": self._right_after,
            "wrong": self._wrong,
            "errors": {error: count for error, count in self._errors.items() if count},
            "unsent": max(0, self._due_in_window() - self._sent_in_time),
            "queued": self._queued,
            "measured_s": max(0, measured_ns) / 1e9,
            "sent_bytes": self._sent * self._request_bytes,
            "read_bytes": sum(connection.read_bytes for connection in self._connections),
            "cpu_s": (after.ran_ns - before.ran_ns) / 1e9,
            "waited_s": (after.waited_ns - before.waited_ns) / 1e9,
            "watched_s": (after.at_ns - before.at_ns) / 1e9,
            "latency": self._latency.encode().decode(),
            "late": self._late.encode().decode(),
            "served": self._served.encode().decode(),
        }

    def _due_in_window(self) -> int:
        """How many requests were due during the measurement; 0 without a rate."""
        if self._rate is None:
            return 0
        turn = (self._index, self._count, self._start_ns, self._rate)
        return due_before(self._to_ns, *turn) - due_before(self._from_ns, *turn)


class CpuTime(NamedTuple):
    """What this process has used, and when that was measured, ns."""

    ran_ns: int
    waited_ns: int
    """On Linux: how long it waited for a processor."""
    at_ns: int


def _cpu_time(now: int) -> CpuTime:
    waited = 0
    with contextlib.suppress(OSError, IndexError, ValueError), open("/proc/self/schedstat", "rb") as file:
        waited = int(file.read().split()[1])
    return CpuTime(time.process_time_ns(), waited, now)


def _print(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


class _Parent:
    """The parent's end of this process's input, which closes when the parent ends."""

    def ready(self, events: int) -> None:
        """Exit if the input is closed; no more data is expected."""
        if not os.read(0, 4096):
            os._exit(1)


def main() -> None:
    """Read the order, report ready, read the times, run, and print the result."""
    order = json.loads(sys.stdin.readline())
    selector = selectors.DefaultSelector()
    load = Load(order, selector)
    _print({"ready": True})
    times = json.loads(sys.stdin.readline())
    selector.register(0, selectors.EVENT_READ, _Parent())
    # There are few reference cycles, and a garbage collection would distort the latencies.
    gc.freeze()
    gc.disable()
    _print({"result": load.run(**times)})


if __name__ == "__main__":
    main()
