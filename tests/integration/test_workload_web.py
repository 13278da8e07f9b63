"""web_server_load with real processes: consistent figures, servers that misbehave, and rates by the wall clock."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from mesh.kinds.table import validate
from node.workloads import web_server_load
from node.workloads.web import answers, processes
from tests.web_servers import OK, answering, load_test_in

ROOT = Path(__file__).resolve().parents[2]
OK_SHA256 = hashlib.sha256(b"ok").hexdigest()


@pytest.fixture
def run(tmp_path):
    return load_test_in(tmp_path)


def helpers() -> list[psutil.Process]:
    """The server and generator processes that this process has started."""
    return [
        process
        for process in psutil.Process().children()
        if any("node.workloads.web." in argument for argument in process.cmdline())
    ]


# --- figures


@pytest.mark.serial
def test_connections_are_rate_times_latency(run):
    """Little's law: the number of requests in flight in a closed loop is the number of connections."""
    result = run({"seconds": 0.8, "warm_up_s": 0.2, "connections": 12})
    under_way = result["requests_per_s"] * result["latency_ms"]["mean"] / 1000
    assert under_way == pytest.approx(12, rel=0.1), result
    assert result["error_count"] == 0 and result["requests"] > 100
    assert result["server"]["cpu_s"] > 0 and 0 < result["generator"]["busy_share"] <= 1.5
    assert not helpers()


@pytest.mark.serial
def test_open_loop_keeps_its_rate(run):
    updates = []
    result = run(
        {"mode": "open", "rate_per_s": 150, "seconds": 1, "warm_up_s": 0.2, "connections": 4},
        progress=lambda fraction, note="": updates.append((fraction, note)),
    )
    assert result["requests"] + result["error_count"] == 150 and result["offered_per_s"] == 150
    assert result["requests_per_s"] == pytest.approx(150, rel=0.25)
    assert [fraction for fraction, _ in updates] == sorted(fraction for fraction, _ in updates)
    assert any("requests/s" in note for _, note in updates)


def consistent(result):
    """A result whose figures agree with each other."""
    assert result["requests_per_s"] == round(result["requests"] / result["seconds"], 1), result
    assert result["error_count"] == sum(result["errors"].values())
    generator = result["generator"]
    assert 0 <= generator["busy_share"] <= 1 and generator["cpu_s"] >= 0, generator
    assert "%" not in (generator["note"] or "") or generator["busy_share"] > 0.85
    return result


def test_more_than_the_connections_carry_is_called_saturated(run):
    """The warm-up leaves a backlog of thousands: it must not take the place of what is measured."""
    payload = {"mode": "open", "rate_per_s": 100_000, "connections": 16, "seconds": 0.5, "timeout_s": 0.3}
    result = consistent(run(payload))
    assert result["offered_per_s"] == 100_000 and 100 < result["requests_per_s"] < 100_000
    assert result["requests"] + result["requests_after_the_end"] + result["error_count"] == 50_000
    assert result["errors"]["never sent"] > 1000 and result["generator"]["saturated"] is True
    assert "saturated" in result["generator"]["note"] or "could not be offered" in result["generator"]["note"]


@pytest.mark.parametrize("cores", [2, 4])
def test_one_request_has_figures_that_make_sense(run, cores):
    result = consistent(run({"requests": 1, "warm_up_s": 0}, cores=cores))
    assert (result["requests"], result["error_count"], result["generator"]["saturated"]) == (1, 0, False)
    assert result["generator"]["note"] is None and result["server"]["cpu_s"] < 0.5


@pytest.mark.serial
def test_answers_that_come_after_the_end_are_counted_apart(run):
    """Each answer takes 80 ms: of four that begin within 0.3 s the last one ends later."""

    def slow(number: int) -> bytes:
        time.sleep(0.08)
        return OK

    with answering(slow) as server:
        payload = {"connections": 1, "warm_up_s": 0, "seconds": 0.3, "target": server.target}
        result = consistent(run(payload, listed=[server.target]))
    assert result["seconds"] == 0.3 and result["requests"] <= 3 and result["requests_after_the_end"] == 1, result
    assert result["requests"] + 1 == server.requests


def stalling(after_s: float, stall_s: float) -> Callable[[int], bytes]:
    """Answers at once, except during one stall that begins `after_s` after the first request."""
    began = []

    def answer(number: int) -> bytes:
        now = time.monotonic()
        began.append(now)
        passed_s = now - began[0]
        if after_s <= passed_s < after_s + stall_s:
            time.sleep(after_s + stall_s - passed_s)
        return OK

    return answer


@pytest.mark.serial
def test_a_stall_shows_in_open_loop_and_not_in_the_latency_from_sending(run):
    """No coordinated omission: 300 ms without an answer at 200 a second are 60 late requests, not one."""
    with answering(stalling(0.3, 0.3)) as server:
        payload = {"mode": "open", "rate_per_s": 200, "seconds": 1, "warm_up_s": 0, "connections": 1}
        result = run({**payload, "target": server.target}, listed=[server.target])
    assert result["requests"] == 200 and not result["errors"]
    assert result["latency_ms"]["p99"] > 200 and result["latency_ms"]["p90"] > 100, result
    assert result["from_sending_ms"]["p99"] < 150 < result["from_sending_ms"]["max"], result
    assert result["waited_for_a_connection"] >= 40


@pytest.mark.serial
def test_a_server_that_never_answers_counts_with_the_time_waited(run):
    with answering(lambda number: b"") as server:
        payload = {"mode": "open", "rate_per_s": 100, "seconds": 0.5, "warm_up_s": 0, "connections": 2}
        result = run({**payload, "timeout_s": 0.3, "target": server.target}, listed=[server.target])
    assert result["requests"] == 0 and result["error_count"] == 50
    assert result["errors"]["no response in time"] >= 4 and result["errors"]["never sent"] > 20
    assert 300 < result["latency_ms"]["p50"] < 900


def test_several_generators_are_merged(run):
    """Four cores give two generators."""
    result = run({"requests": 301, "connections": 4, "server_processes": 1, "warm_up_s": 0}, cores=4)
    assert result["generator"]["processes"] == 2
    assert result["requests"] == 301
    from hdrh.histogram import HdrHistogram

    assert HdrHistogram.decode(result["histogram"]).get_total_count() == 301


@pytest.mark.parametrize(
    "more",
    [
        {"route": "json"}, {"route": "body", "body_kb": 300}, {"route": "cpu"}, {"keep_alive": False},
        {"route": "echo", "method": "POST", "body_bytes": 300_000}, {"method": "POST"},
    ],
    ids=str,
)  # fmt: skip
def test_every_route_is_answered_correctly(run, more):
    result = run({"requests": 40, "connections": 3, "warm_up_s": 0, "seconds": 20, **more})
    assert result["requests"] == 40 and result["error_count"] == 0


def test_more_than_can_be_sent_is_accounted_for(run):
    """At an offered rate that can't be reached, every request that was due is counted."""
    with answering(lambda number: OK) as server:
        payload = {"mode": "open", "rate_per_s": 150_000, "seconds": 0.5, "warm_up_s": 0, "timeout_s": 0.1}
        result = run({**payload, "connections": 64, "target": server.target}, listed=[server.target], cores=1)
    assert result["requests_per_s"] < 150_000 and result["errors"]["never sent"] > 1000
    assert result["offered_per_s"] == 150_000


def test_connections_are_kept_unless_told_otherwise(run):
    for keep_alive, connections in ((True, 3), (False, 60)):
        with answering(lambda number: OK) as server:
            payload = {"requests": 60, "connections": 3, "warm_up_s": 0, "keep_alive": keep_alive}
            result = run({**payload, "target": server.target}, listed=[server.target])
        assert (result["requests"], server.connections) == (60, connections)
        assert all((b"\r\nConnection: close" in head) is not keep_alive for head in server.seen)


# --- wrong answers


def test_wrong_answers_are_counted_by_their_error(run):
    def answer(number: int) -> bytes:
        if number % 5 == 0:
            return b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
        return OK.replace(b"ok", b"no") if number % 7 == 0 else OK

    with answering(answer) as server:
        payload = {"requests": 70, "connections": 1, "warm_up_s": 0, "expect_sha256": OK_SHA256}
        result = run({**payload, "target": server.target, "path": "/a?b=c"}, listed=[server.target])
    assert result["errors"] == {"status 503": 14, "wrong body": 8} and result["requests"] == 48
    assert server.seen[0].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: " + server.target.encode() + b"\r\n")


def test_wrong_answers_of_its_own_server_fail_the_task(run, monkeypatch):
    monkeypatch.setattr(answers, "answer", lambda path, sent: (b"Goodbye, World", "text/plain"))
    with pytest.raises(RuntimeError, match=r"server returned \d+ wrong responses out of \d+ \(wrong length: "):
        run({"requests": 10, "warm_up_s": 0})
    assert not helpers()


REDIRECT = b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.2:1/\r\nContent-Length: 0\r\n\r\n"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * (65 << 20)
EARLY = b"HTTP/1.1 103 Early\r\nA: b\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
HOSTILE = {
    "a redirect": (lambda number: REDIRECT, "status 302"),
    "noise": (lambda number: b"\x00\xff" * 100 + b"\r\n\r\n", "no HTTP"),
    "two answers": (lambda number: OK + OK, "no HTTP"),
    "endless headers": (lambda number: b"HTTP/1.1 200 OK\r\nA: " + b"a" * 400_000, "response too long"),
    "many headers": (lambda number: b"HTTP/1.1 200 OK\r\n" + b"A: a\r\n" * 60_000, "response too long"),
    "a huge body": (lambda number: LONG, "response too long"),
    "nothing": (lambda number: None, "connection closed"),
    "half an answer": (lambda number: OK[:-1] if number % 2 else None, "no response in time"),
}  # fmt: skip


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_server_is_only_an_error_in_the_figures(run, how):
    answer, error = HOSTILE[how]
    with answering(answer) as server:
        payload = {"requests": 2, "connections": 1, "warm_up_s": 0, "seconds": 10, "timeout_s": 2}
        result = run({**payload, "target": server.target, "expect_sha256": OK_SHA256}, listed=[server.target])
    assert result["errors"].get(error, 0) >= 1 and result["requests"] == 0, result["errors"]


@pytest.mark.parametrize("whole", [CHUNKED, EARLY + OK, OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n")])
def test_valid_answers_in_other_forms_are_accepted(run, whole):
    with answering(lambda number: whole) as server:
        payload = {"requests": 6, "connections": 2, "warm_up_s": 0, "expect_sha256": OK_SHA256}
        result = run({**payload, "target": server.target}, listed=[server.target])
    assert result["requests"] == 6 and not result["errors"]


# --- processes that end


def test_a_kill_of_its_own_server_is_one_sentence(run):
    ended = []

    def kill(fraction: float, note: str = "") -> None:
        for helper in helpers():
            if "requests/s" in note and not ended and "node.workloads.web.server" in helper.cmdline():
                ended.append(helper)
                helper.kill()

    started = time.monotonic()
    with pytest.raises(RuntimeError, match="the web server ended with status -9 before the test was over"):
        run({"seconds": 30, "warm_up_s": 0}, progress=kill)
    assert ended and time.monotonic() - started < 15 and not helpers()


def test_a_target_that_dies_half_way_is_counted_and_the_test_ends_in_time(run):
    with answering(lambda number: OK if number <= 50 else server.close()) as server:
        payload = {"seconds": 0.6, "connections": 2, "warm_up_s": 0, "target": server.target}
        result = run(payload, listed=[server.target])
    assert result["requests"] == 50 and result["error_count"] > 2, result["errors"]
    assert result["errors"]["connection closed"] >= 1 and result["errors"]["connection refused"] >= 1


def test_without_its_library_the_kind_names_it():
    script = (
        "import sys; sys.modules['hdrh'] = None\n"
        "from pathlib import Path\n"
        "from mesh.kinds.table import validate\n"
        "from node.executor.context import Context, load\n"
        "try: load('web_server_load')(validate('web_server_load', {}), Context(1, Path('.')))\n"
        "except ImportError as error: print('absent', error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "absent hdrh"


def test_server_and_generator_end_when_whoever_started_them_is_gone(run):
    """Their standard input closes, however that process ended."""
    with processes.servers(1) as (started, port):
        (order,) = web_server_load.orders(validate("web_server_load", {}), "127.0.0.1", port, "x", 1)
        generator = processes.Helper("a load generator", "node.workloads.web.generator")
        try:
            generator.send(order)
            processes.await_ready([*started, generator])
            now = time.monotonic_ns()
            generator.send({"start_ns": now, "from_ns": now, "to_ns": now + 60 * 10**9})
            for helper in (generator, *started):
                helper.process.stdin.close()
                helper.process.wait(timeout=10)
        finally:
            generator.end()


def test_a_test_that_ended_leaves_no_process_and_no_socket(run):
    before = psutil.Process().num_fds()
    run({"requests": 5, "warm_up_s": 0})
    assert not helpers() and psutil.Process().num_fds() == before
    assert web_server_load.SPEC.name == "web_server_load"
