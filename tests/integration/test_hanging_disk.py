"""The disk of the bus server that leads everything hangs: each writer sleeps uninterruptibly until it works again.

Real servers, each with the guard that its node runs. `tests/lan/test_hanging_disk.py` has whole nodes under work.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.bus import admin_api
from mesh.bus.client import Bus
from mesh.bus.server.supervisor import BusServer
from mesh.cluster import raft_meta
from mesh.coordination import ServerRecord
from mesh.errors import QueztlError
from node.lifecycle.store_guard import StoreGuard
from tests.integration.test_bus_cluster import Trio, _filled, _grow
from tests.nodes import eventually
from tests.small_disk import freeze, small_disk

pytestmark = pytest.mark.timeout(180)
#: How long the disk hangs, seconds: longer than a course of a task may take meanwhile.
HANGS_S = 20.0
#: The longest course of a task, seconds: 4 until the hang is noticed, and one election (4 to 9 s) of all groups. It was
#: one election after the other, for which 25 s were too short.
STALL_S = 16.0
#: One subject of each stream that a task with an idempotency key needs, and of those that its leader needs.
WRITES = ("$KV.claims", "work.echo.any.normal", "metric.echo", "$KV.nodes", "mesh.event.test", "$KV.plan", "dead.echo")


@contextlib.asynccontextmanager
async def guarded(trio: Trio) -> AsyncIterator[dict[str, StoreGuard]]:
    """The guard of each server."""
    names = sorted(trio.servers)

    def records() -> list[ServerRecord]:
        found = ((name, trio.servers[name]) for name in names)
        return [
            ServerRecord(node=name, name=server.name, routes=server.routes, client_urls=server.address.client_urls,
                         since=0.0)
            for name, server in found
        ]  # fmt: skip

    def server_of(name: str) -> BusServer:
        return trio.servers[name]

    buses = {name: await Bus.connect(trio.servers[name].address.client_urls, name=name) for name in names}
    guards = {name: StoreGuard(buses[name], name, name, lambda name=name: server_of(name), records) for name in names}
    running = [asyncio.create_task(guard.run()) for guard in guards.values()]
    try:
        yield guards
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for bus in buses.values():
            await bus.close()


class Pulse:
    """What a task needs to be written until it ends, into one stream after the other, again and again; the client of
    b and c waits for each write."""

    def __init__(self, bus: Bus, pause_s: float) -> None:
        self._bus, self._pause_s = bus, pause_s
        self._longest_s, self._stored = 0.0, 0
        self._began_at: float | None = None

    @property
    def longest_s(self) -> float:
        """The longest course of a task, also of the one under way, seconds."""
        waits_s = 0.0 if self._began_at is None else time.monotonic() - self._began_at
        return max(self._longest_s, waits_s)

    async def run(self) -> None:
        while True:
            self._began_at = time.monotonic()
            for prefix in WRITES:
                await self._write(prefix)
            self._longest_s, self._began_at = self.longest_s, None
            await asyncio.sleep(self._pause_s)

    async def _write(self, prefix: str) -> None:
        while True:
            self._stored += 1
            number = str(self._stored)
            with contextlib.suppress(QueztlError):
                await self._bus.store(f"{prefix}.s-{number}", b"x", msg_id=number, timeout_s=5.0)
                return


async def lead_everything(trio: Trio, bus: Bus, system: Bus) -> None:
    """Let a lead the meta group and every stream."""
    name = trio.servers["a"].name

    async def leads() -> bool:
        with contextlib.suppress(QueztlError):
            streams = await raft_meta.list_streams(bus)
            for stream in streams:
                if stream.leader and stream.leader != name:
                    await bus.move_leader(stream.name, name)
            group = await trio.group(system)
            if group is not None and group.leader != name:
                await admin_api.move_meta_leader(system, name)
            return group is not None and group.leader == name and all(stream.leader == name for stream in streams)
        return False

    await eventually(leads, 60, "a leads everything")


async def test_a_leader_whose_disk_hangs_is_suspended_and_comes_back(tmp_path: Path) -> None:
    await _scene(tmp_path, busy=True)


@pytest.mark.long
async def test_a_leader_that_has_nothing_to_write_is_suspended_when_its_disk_hangs(tmp_path: Path) -> None:
    """It would keep all its leaderships until somebody writes."""
    await _scene(tmp_path, busy=False)


async def _scene(tmp_path: Path, busy: bool) -> None:
    with small_disk(tmp_path, 1000) as disk:
        (disk / "a").mkdir()
        (tmp_path / "a").symlink_to(disk / "a")
        trio = Trio(tmp_path)
        try:
            await _hang(trio, disk, busy)
        finally:
            freeze(disk, False)
            await trio.close()


async def _hang(trio: Trio, disk: Path, busy: bool) -> None:
    bus = await _filled(trio)
    system = await _grow(trio, bus)
    await trio.introduce()
    await lead_everything(trio, bus, system)
    urls = [url for name in "bc" for url in trio.servers[name].address.client_urls]
    pulse = Pulse(await Bus.connect(urls, name="pulse"), 0.05)
    async with guarded(trio) as guards:
        pid = trio.servers["a"].pids["server"]
        writing = asyncio.create_task(pulse.run())
        await asyncio.sleep(2.0)
        if not busy:
            writing.cancel()
        freeze(disk, True)
        began = time.monotonic()
        try:
            if not busy:
                await asyncio.sleep(6.0)
                writing = asyncio.create_task(pulse.run())
            await asyncio.sleep(began + HANGS_S - time.monotonic())
            print(f"{'busy' if busy else 'idle'}: the longest course of a task {pulse.longest_s:.1f} s", flush=True)
            assert pulse.longest_s < STALL_S
            health = guards["a"].health
            assert "did not finish a write" in health.says and not health.stores and not health.is_full
        finally:
            freeze(disk, False)

        async def back() -> bool:
            group = await trio.group(system)
            pids = trio.servers["a"].pids
            return pids.get("server", pid) != pid and group is not None and all(group.members.values())

        await eventually(back, 60, "the server of the disk that works again is a current member")
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await eventually(lambda: _stores(guards["a"]), 30, "its guard finds nothing wrong")


async def _stores(guard: StoreGuard) -> bool:
    return guard.health.stores and not guard.health.says
