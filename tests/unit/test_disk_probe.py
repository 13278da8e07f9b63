"""The probe of a disk: readable while a write hangs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from mesh.bus.server import disk
from mesh.bus.server.blocked_threads import waits
from mesh.bus.server.disk import HANGS_AFTER_S, SLOW_S, DiskProbe
from mesh.bus.server.health import Disk
from tests.nodes import eventually

STATUS = b"""Name:\tnats-server
Umask:\t0022
State:\t%s
Tgid:\t5109
Mems_allowed_list:\t0
voluntary_ctxt_switches:\t%d
nonvoluntary_ctxt_switches:\t24
"""


def test_a_thread_that_waits_uninterruptibly_is_told_from_one_that_sleeps() -> None:
    assert waits(STATUS % (b"D (disk sleep)", 57)) == 57
    assert waits(STATUS % (b"S (sleeping)", 57)) == waits(STATUS % (b"R (running)", 57)) == waits(b"") == 0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def _is(value: object) -> object:
    return value


async def test_a_write_that_hangs_is_seen_and_a_disk_that_works_again_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, go_on, looks = Clock(), threading.Event(), 0
    go_on.set()
    real = disk.look_at

    def look(folder: Path) -> Disk:
        nonlocal looks
        looks += 1
        go_on.wait()
        return real(folder)

    monkeypatch.setattr(disk, "look_at", look)
    monkeypatch.setattr(disk, "EVERY_S", 0.01)
    probe = DiskProbe(tmp_path, clock=clock)
    assert probe.state is None and probe.hangs_s == probe.works_s == 0.0 and probe.wrote_ago_s == float("inf")
    probe.start()
    try:
        await eventually(lambda: _is(probe.state), 10, "a first look")
        assert probe.state is not None and not probe.state.fault and probe.state.free_bytes > 0
        assert list(tmp_path.iterdir()) in ([], [tmp_path / ".write-probe"])
        go_on.clear()
        before = looks
        await eventually(lambda: _is(looks > before), 10, "a look that hangs")
        clock.now += HANGS_AFTER_S + 5
        assert probe.state == Disk(0, "hangs") and probe.hangs_s == HANGS_AFTER_S + 5
        assert probe.wrote_ago_s >= HANGS_AFTER_S + 5 and probe.works_s == 0.0
        stopping = asyncio.Event()
        waiting = asyncio.create_task(probe.until_works(2.0, stopping))
        go_on.set()
        await eventually(lambda: _is(probe.hangs_s < SLOW_S), 10, "it goes on")
        assert not waiting.done()

        async def works() -> bool:
            clock.now += 0.1
            return waiting.done()

        await eventually(works, 10, "it has worked for two seconds")
        go_on.clear()
        before = looks
        await eventually(lambda: _is(looks > before), 10, "a look that hangs")
        clock.now += 60.0
        waiting = asyncio.create_task(probe.until_works(0.0, stopping))
        await asyncio.sleep(0)
        assert not waiting.done()
        stopping.set()
        await waiting
    finally:
        probe.close()
        go_on.set()
