"""A load generator on a simulated clock: rates, latencies and stalls without the noise of a busy machine.

tests/integration/test_workload_web.py measures the same with real servers and the real clock.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.kinds.table import validate
from mesh.kinds.web_server_load import WebServerLoadPayload
from node.workloads import web_server_load
from node.workloads.web import generator
from tests.examples import examples

MS = 1_000_000
#: When the response to a request sent at that time arrives, both in ns after the start; None: never.
Answer = Callable[[int], int | None]


class SimulatedConnection:
    """Has the part of `Connection` that a generator uses."""

    def __init__(self, simulation: Simulation, ended: Callable[[Any, str | None], None]) -> None:
        self._simulation, self._ended = simulation, ended
        self.busy, self.failures = False, 0
        self.due_ns = self.sent_ns = self.free_ns = self.read_bytes = 0

    def start(self, due_ns: int, now_ns: int) -> None:
        self.due_ns, self.sent_ns, self.busy = due_ns, now_ns, True
        self._simulation.sent(self)

    def ready(self, events: int) -> None:
        self._end(None)

    def fail(self, error: str) -> None:
        self._simulation.arrivals.pop(self, None)
        self._end(error)

    def _end(self, error: str | None) -> None:
        self.busy = False
        self._ended(self, error)

    def close(self) -> None:
        pass


class Simulation:
    """The clock, the selector and the server of one generator."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.now = 0
        self.arrivals: dict[SimulatedConnection, int] = {}
        self.sent_at: list[int] = []

    def sent(self, connection: SimulatedConnection) -> None:
        self.sent_at.append(self.now)
        if (at := self._answer(self.now)) is not None:
            self.arrivals[connection] = at

    def fileno(self) -> int:
        return -1

    def wait(self, readers: Any, writers: Any, others: Any, timeout_s: float) -> None:
        """Move the clock to the next response, but not beyond the timeout."""
        until = self.now + max(1, round(timeout_s * 1e9))
        self.now = max(self.now, min([until, *self.arrivals.values()]))

    def select(self, timeout_s: float) -> list[tuple[Any, int]]:
        arrived = [connection for connection, at in self.arrivals.items() if at <= self.now]
        for connection in arrived:
            del self.arrivals[connection]
        return [(SimpleNamespace(data=connection), 1) for connection in arrived]


def measured(payload: WebServerLoadPayload, answer: Answer) -> tuple[dict[str, Any], Simulation]:
    """What the generator measures when the server answers as `answer` says, and what happened."""
    simulation = Simulation(answer)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "clock", lambda: simulation.now)
        patch.setattr(generator, "select", SimpleNamespace(select=simulation.wait))
        patch.setattr(generator, "Connection", lambda *arguments: SimulatedConnection(simulation, arguments[-1]))
        patch.setattr(generator, "_print", lambda value: None)
        (order,) = web_server_load.orders(payload, "127.0.0.1", 1, "simulated", 1)
        from_ns = round(payload.warm_up_s * 1e9)
        # pyrefly: ignore[bad-argument-type]  a simulated selector
        part = generator.Load(order, simulation).run(0, from_ns, from_ns + round(payload.seconds * 1e9))
    return part, simulation


def simulated(answer: Answer, **given: Any) -> tuple[dict[str, Any], Simulation]:
    """The result of a test whose server answers as `answer` says, and what happened."""
    payload = checked(given)
    part, simulation = measured(payload, answer)
    return web_server_load.summary(payload, [part], 0.0, 1, "simulated"), simulation


def checked(given: dict[str, Any]) -> WebServerLoadPayload:
    payload = validate("web_server_load", {"warm_up_s": 0, **given})
    assert isinstance(payload, WebServerLoadPayload)
    return payload


def after(ms: float) -> Answer:
    """Each response arrives so long after its request."""
    return lambda sent_ns: sent_ns + round(ms * MS)


def test_connections_are_rate_times_latency() -> None:
    """Little's law: the number of requests in flight in a closed loop is the number of connections."""
    result, _ = simulated(after(3), seconds=1, warm_up_s=0.2, connections=12)
    assert result["requests"] == pytest.approx(4000, abs=12) and result["error_count"] == 0
    assert result["latency_ms"]["p50"] == result["latency_ms"]["max"] == pytest.approx(3, rel=0.001)
    assert result["requests_per_s"] * result["latency_ms"]["mean"] / 1000 == pytest.approx(12, rel=0.005)


def test_open_loop_keeps_its_rate() -> None:
    given = {"mode": "open", "rate_per_s": 150, "connections": 4, "seconds": 1, "warm_up_s": 0.2}
    result, simulation = simulated(after(2), **given)
    assert (result["requests"], result["error_count"], result["offered_per_s"]) == (150, 0, 150)
    assert simulation.sent_at == pytest.approx([number * 1e9 / 150 for number in range(180)], abs=2)
    assert result["generator"]["late_send_ms"]["max"] < 0.002, "each request leaves when it is due"


def test_answers_that_come_after_the_end_are_counted_apart() -> None:
    """Each answer takes 80 ms: of four that begin within 0.3 s the last one ends later."""
    result, simulation = simulated(after(80), connections=1, seconds=0.3)
    assert (result["requests"], result["requests_after_the_end"], len(simulation.sent_at)) == (3, 1, 4)


def test_a_stall_shows_in_open_loop_and_not_in_the_latency_from_sending() -> None:
    """No coordinated omission: 300 ms without an answer at 200 a second are 60 late requests, not one."""

    def stalls(sent_ns: int) -> int:
        return 600 * MS if 300 * MS <= sent_ns < 600 * MS else sent_ns + 100_000

    result, _ = simulated(stalls, mode="open", rate_per_s=200, seconds=1, connections=1)
    assert result["requests"] == 200 and not result["errors"]
    assert result["latency_ms"]["max"] == pytest.approx(300, rel=0.01) and result["latency_ms"]["p90"] > 150
    assert result["from_sending_ms"]["p99"] == pytest.approx(0.1, abs=0.01)
    assert result["from_sending_ms"]["max"] == pytest.approx(300, rel=0.01)
    assert 59 <= result["waited_for_a_connection"] <= 62


def test_a_server_that_never_answers_counts_with_the_time_waited() -> None:
    """Two connections send two requests each time those before have timed out: at 0, 0.3 and 0.6 s."""
    given = {"mode": "open", "rate_per_s": 100, "seconds": 0.5, "connections": 2, "timeout_s": 0.3}
    result, simulation = simulated(lambda sent_ns: None, **given)
    assert result["requests"] == 0 and result["errors"] == {"never sent": 44, "no response in time": 6}
    assert len(simulation.sent_at) == 6 and simulation.sent_at[:2] == pytest.approx([0, 10 * MS], abs=2)
    assert 300 < result["latency_ms"]["p50"] < 900


@settings(max_examples=examples(30))  # histograms of Python take a while
@given(
    rate=st.integers(1, 400),
    connections=st.integers(1, 5),
    answer_ms=st.none() | st.floats(0.01, 400),
    timeout_s=st.floats(0.05, 0.5),
)
def test_each_request_that_was_due_is_counted_once(
    rate: int, connections: int, answer_ms: float | None, timeout_s: float
) -> None:
    answer = after(answer_ms) if answer_ms is not None else lambda sent_ns: None
    given = {"mode": "open", "rate_per_s": rate, "connections": connections, "timeout_s": timeout_s, "seconds": 0.5}
    part, simulation = measured(checked(given), answer)
    due = -(-rate // 2)
    assert part["right"] + part["right_after"] + sum(part["errors"].values()) == due
    assert len(simulation.sent_at) + part["errors"].get("never sent", 0) == due
    assert simulation.now <= (0.5 + timeout_s) * 1e9 + 25 * MS, "it ends in time"
