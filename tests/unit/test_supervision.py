"""Services: restarted or fatal by their policy and drained in reverse order; and the format of logs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import os
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import log as log_module
from mesh.supervision import RESTART_MAX_S, STEADY_S, Service, ServiceFailed, backoff_s, every, run_services


@given(st.integers(1, 10**6), st.floats(0, STEADY_S * 0.99), st.floats(0, 1))
def test_backoff_grows_within_bounds(failures, ran_s, share):
    pause_s, after = backoff_s(failures, ran_s, share)
    longer_s, _ = backoff_s(after, ran_s, share)
    assert 0.05 <= pause_s <= longer_s <= RESTART_MAX_S
    assert after == failures + 1
    assert backoff_s(failures, STEADY_S, share)[1] == 2


async def test_a_crashed_service_is_restarted_and_the_others_go_on(caplog):
    stop, runs, names, cancelled = asyncio.Event(), [], [], []

    async def shaky():
        runs.append(asyncio.current_task().get_name())
        if len(runs) < 3:
            raise OSError("no route\nto host")
        stop.set()
        await asyncio.Event().wait()

    async def steady():
        names.append(asyncio.current_task().get_name())
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append("steady")

    with caplog.at_level(logging.DEBUG):
        await run_services([Service("steady", steady), Service("shaky", shaky)], stop)
    assert runs == ["shaky"] * 3 and names == ["steady"] and cancelled == ["steady"]
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2 and all(line.endswith("no route to host") for line in errors)
    assert all(record.exc_info for record in caplog.records if record.getMessage() == "shaky failed")


async def test_a_fatal_failure_drains_the_rest_in_reverse_order_and_is_raised():
    ended = []

    def waits(name):
        async def run():
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(name)

        return run

    async def dies():
        await asyncio.sleep(0)
        raise ConnectionError("the bus is gone")

    async def ends():
        return None

    services = [Service(name, waits(name)) for name in ("bus", "heart")]
    services += [Service("dies", dies, "stop_node"), Service("ends", ends), Service("puller", waits("puller"))]
    with pytest.raises(ServiceFailed, match="dies failed: the bus is gone") as caught:
        await run_services(services, asyncio.Event())
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert ended == ["puller", "heart", "bus"]


async def test_a_service_that_does_not_end_is_abandoned_with_a_warning(caplog):
    stop, free = asyncio.Event(), asyncio.Event()

    async def stubborn():
        stop.set()
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    await run_services([Service("stubborn", stubborn)], stop, drain_s=0.05)
    assert "stubborn did not end" in caplog.text
    free.set()


async def test_two_of_the_same_name_are_refused():
    async def run():
        return None

    with pytest.raises(ValueError, match="same name"):
        await run_services([Service("a", run), Service("a", run)], asyncio.Event())


async def test_every_reports_how_late_a_tick_is_and_does_not_catch_up(monkeypatch):
    loop = asyncio.get_running_loop()
    clock = {"now": 100.0}
    stalls = iter([0.0, 5.0, 0.0, 0.0])

    async def sleep(seconds):
        clock["now"] += seconds + next(stalls)

    monkeypatch.setattr(loop, "time", lambda: clock["now"])
    monkeypatch.setattr("mesh.supervision.asyncio.sleep", sleep)
    seen = []
    async for tick in every(1.0, jitter=0.0):
        seen.append((tick.number, round(tick.late_s, 6), clock["now"]))
        if len(seen) == 5:
            break
    assert [late for _, late, _ in seen] == [0.0, 0.0, 5.0, 0.0, 0.0]
    assert [number for number, _, _ in seen] == [0, 1, 2, 3, 4]
    assert all(math.isclose(at, want) for (_, _, at), want in zip(seen, [100, 101, 107, 107, 108], strict=True))


@pytest.mark.parametrize("as_json", [True, False])
def test_logs_are_one_line_for_people_or_for_programs(as_json):
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    try:
        log_module.set_up("INFO", as_json, stream)
        logging.getLogger("mesh.discovery.mdns").debug("not shown")
        try:
            raise OSError("broken")
        except OSError:
            logging.getLogger("mesh.discovery.mdns").warning("It said %s.", "broken", exc_info=sys.exc_info())
        root.handlers[0].flush()
    finally:
        root.handlers[:], root.level = before
    (line,) = stream.getvalue().splitlines()
    if as_json:
        fields = json.loads(line)
        assert fields["component"] == "mesh.discovery.mdns" and fields["level"] == "warning"
        assert fields["message"] == "It said broken." and "OSError" in fields["traceback"]
    else:
        assert line.endswith("warning discovery.mdns: It said broken.")


def test_a_log_that_nobody_reads_stops_nobody():
    reading, writing = os.pipe()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        with os.fdopen(reading) as reader:
            with os.fdopen(writing, "w") as stream:
                log_module.set_up("INFO", stream=stream)
                text = "x" * 1000
                for number in range(20_000):  # a pipe holds 64 KB
                    logging.getLogger("mesh.x").info("%d %s", number, text)
                reader.readline()
                lines = [reader.readline() for _ in range(8_000)]
                assert all(line.endswith(f"{text}\n") for line in lines)
                for line in reader:
                    if "dropped" in line:
                        break
                    logging.getLogger("mesh.x").info("more")
                rest = threading.Thread(target=reader.read)
                rest.start()
                root.handlers[0]._lines.join()  # closing the pipe must not meet a line that is being written
            rest.join()
    finally:
        root.handlers[:], root.level = before


def test_an_unknown_log_level_is_refused():
    with pytest.raises(ValueError, match="must be one of debug"):
        log_module.set_up("loud")
