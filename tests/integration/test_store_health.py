"""A bus server whose process lives and whose store does not: a full disk, a read-only one, lost blocks.

The mechanism: nats-server keeps a write error until it restarts, and its own health check says "ok" meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mesh.bus.client import Bus
from mesh.bus.server.health_monitor import LOOK_SOON_S, Health, HealthMonitor
from mesh.bus.server.supervisor import BusServer
from mesh.bus.streams import declare_streams
from mesh.config import LOCAL
from mesh.errors import BusUnavailable, QueztlError
from mesh.node_api import API_PREFIX
from tests.integration.bus_server_harness import SETTINGS
from tests.nodes import Cluster, NodeProcess, eventually
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.timeout(180)
#: Submissions that are refused at once are answered within this, seconds: a look at the disk, and a busy machine.
AT_ONCE_S = 5.0
HEALED_WITHIN_S = 40.0
ROOMY = replace(SETTINGS, store_max_bytes=1 << 50)


class Watched:
    """A bus server with a monitor, as a node has them."""

    def __init__(self, folder: Path) -> None:
        self.server = BusServer(folder / "bus", ROOMY, lambda *_: None)
        self.health: list[Health] = []
        self._monitoring: asyncio.Task[None] | None = None
        self.bus: Bus

    async def start(self, room: Path) -> None:
        await self.server.start()
        self.bus = await Bus.connect(self.server.address.client_urls, name="test", config=LOCAL)
        await declare_streams(self.bus, LOCAL, shutil.disk_usage(room).free)
        monitor = HealthMonitor(self.server, self.health.append, _always)
        self._monitoring = asyncio.create_task(monitor.run())

    async def until(self, holds: Callable[[Health], bool], why: str) -> Health:
        async def seen() -> bool:
            return bool(self.health) and holds(self.health[-1])

        await eventually(seen, HEALED_WITHIN_S, lambda: f"{why}: {self.health[-1:]}")
        return self.health[-1]

    async def store(self, number: int, timeout_s: float = 2.0) -> None:
        """Store 100 KB. Raises: QueztlError."""
        data = bytes(100_000)
        await self.bus.store(f"work.echo.any.normal.s-{number}", data, msg_id=f"s-{number}", timeout_s=timeout_s)

    async def pause(self, killed: bool) -> None:
        """End the server; `start` brings it back."""
        await self._stop_watching()
        if killed:
            self.server._stopping.set()
            for pid in self.server.pids.values():
                os.kill(pid, signal.SIGKILL)
        await self.server.stop()
        self.server = BusServer(self.server.folder, ROOMY, lambda *_: None)
        self.health.clear()

    async def _stop_watching(self) -> None:
        if self._monitoring is not None:
            self._monitoring.cancel()
            await asyncio.gather(self._monitoring, return_exceptions=True)
            self._monitoring = None
            await self.bus.close()

    async def close(self) -> None:
        await self._stop_watching()
        await self.server.stop()


async def _always(serves_nothing: bool) -> bool:
    return True


@contextlib.asynccontextmanager
async def watched(folder: Path, room: Path) -> AsyncIterator[Watched]:
    made = Watched(folder)
    try:
        await made.start(room)
        yield made
    finally:
        await made.close()


async def test_a_server_that_keeps_a_write_error_is_restarted_once_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, 300) as disk:
        async with watched(disk, disk) as bus:
            await bus.store(1)
            filler, pid = fill(disk), bus.server.pids["server"]
            with pytest.raises(BusUnavailable):
                await bus.store(2)
            found = await bus.until(lambda health: health.is_full, "the full disk is seen")
            assert "is full" in found.says and "ext4" in found.says and str(disk) not in found.says
            await asyncio.sleep(2 * LOOK_SOON_S)  # looks at the disk; one that changes nothing announces nothing
            assert bus.server.pids["server"] == pid, "without room a restart helps nobody"
            filler.unlink()
            await bus.until(lambda health: health.stores and not health.says, "it stores again")
            assert bus.server.pids["server"] != pid
            await bus.store(3, 10.0)
            assert await bus.bus.read_at("WORK", 1) is not None, "what was confirmed is there"


async def test_a_disk_that_fails_is_named_and_its_server_is_left_alone(tmp_path: Path) -> None:
    with small_disk(tmp_path, 300) as disk:
        async with watched(disk, disk) as bus:
            pid = bus.server.pids["server"]
            # ext4 then behaves as after an error of the device: it takes no write any more.
            if not await asyncio.to_thread(_abort, disk):
                pytest.skip("this ext4 can't be told to fail")
            found = await bus.until(lambda health: not health.stores, "it is seen")
            assert ("read-only" in found.says or "fails to write" in found.says) and not found.is_full
            assert bus.server.pids["server"] == pid


def _abort(disk: Path) -> bool:
    return subprocess.run(["mount", "-o", "remount,abort", str(disk)], capture_output=True, check=False).returncode == 0


def _truncate(block: Path) -> None:
    os.truncate(block, block.stat().st_size * 55 // 100)


def _empty(block: Path) -> None:
    os.truncate(block, 0)


DAMAGE: dict[str, tuple[Callable[[Path], None], int]] = {
    "truncated": (_truncate, 3),
    "emptied": (_empty, 5),
    "removed": (Path.unlink, 5),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
async def test_lost_blocks_of_a_store_are_reported_with_stream_and_count(
    tmp_path: Path, how: str, killed: bool
) -> None:
    bus = Watched(tmp_path)
    try:
        await bus.start(tmp_path)
        for number in range(5):
            await bus.store(number)
        await bus.bus.store("task.s.1.end", bytes(1000))
        await eventually(lambda: _ledger_holds(tmp_path, "WORK", 5), 20, "the ledger knows them")
        await bus.pause(killed)
        damage, lost = DAMAGE[how]
        for block in (tmp_path / "bus" / "store").rglob("streams/WORK/msgs/*.blk"):
            damage(block)
        await bus.start(tmp_path)
        found = await bus.until(lambda health: bool(health.lost), "the loss is seen")
        assert found.lost == {"WORK": lost} and found.stores
        await bus.pause(killed=False)
        await bus.start(tmp_path)
        found = await bus.until(lambda health: bool(health.lost), "it is still told after another start")
        assert found.lost == {"WORK": lost}
    finally:
        await bus.close()


def _flip(block: Path) -> None:
    data = bytearray(block.read_bytes())
    data[len(data) // 2] ^= 0xFF
    block.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [_truncate, _flip, _empty, Path.unlink], ids=["truncated", "flipped", "emptied", "removed"]
)
async def test_a_damaged_block_in_the_middle_is_reported_after_a_kill(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """Neither an index nor the last sequence tells. The server is asked why there are more gaps than in the ledger; it
    says nothing of files that are empty or gone, but what is taken from a queue leaves tombstones."""
    bus = Watched(tmp_path)
    try:
        await bus.start(tmp_path)
        for number in range(1, 171):
            await bus.store(number, 10.0)
        for sequence in (3, 4, 100):
            await bus.bus.delete_message("WORK", sequence)
        await eventually(lambda: _ledger_holds(tmp_path, "WORK", 167), 20, "the ledger knows them")
        await bus.pause(killed=True)
        blocks = sorted((tmp_path / "bus" / "store").rglob("streams/WORK/msgs/*.blk"), key=lambda file: int(file.stem))
        damage(blocks[1])
        assert len(blocks) == 3
        await bus.start(tmp_path)
        found = await bus.until(lambda health: bool(health.lost), "the loss is seen")
        left = (await bus.bus.stream_info("WORK")).messages
        assert found.lost == {"WORK": 167 - left} and left < 167
    finally:
        await bus.close()


async def test_blocks_that_were_taken_just_before_a_kill_are_not_lost(tmp_path: Path) -> None:
    """Whole files of the queue are gone, and the ledger does not know yet why."""
    bus = Watched(tmp_path)
    try:
        await bus.start(tmp_path)
        for number in range(1, 171):
            await bus.store(number, 10.0)
        await eventually(lambda: _ledger_holds(tmp_path, "WORK", 170), 20, "the ledger knows them")
        assert bus._monitoring is not None
        bus._monitoring.cancel()  # so the ledger stays as it is
        await asyncio.gather(bus._monitoring, return_exceptions=True)
        for number in range(171, 180):
            await bus.store(number, 10.0)
        await asyncio.gather(*(bus.bus.delete_message("WORK", sequence) for sequence in range(80, 169)))
        await bus.pause(killed=True)
        assert len([*(tmp_path / "bus" / "store").rglob("streams/WORK/msgs/*.blk")]) == 2
        await bus.start(tmp_path)
        bus.health.clear()
        await bus.until(lambda health: len(bus.health) > 1, "it was looked at")
        assert bus.health[-1] == Health() and (await bus.bus.stream_info("WORK")).messages == 179 - 89
    finally:
        await bus.close()


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
async def test_a_store_from_which_work_was_taken_has_lost_nothing(tmp_path: Path, killed: bool) -> None:
    bus = Watched(tmp_path)
    try:
        await bus.start(tmp_path)
        for number in range(5):
            await bus.store(number)
        await eventually(lambda: _ledger_holds(tmp_path, "WORK", 5), 20, "the ledger knows them")
        for sequence in (1, 3, 5):
            await bus.bus.delete_message("WORK", sequence)
        await bus.pause(killed)
        await bus.start(tmp_path)
        bus.health.clear()
        await bus.until(lambda health: len(bus.health) > 1, "it was looked at")
        assert bus.health[-1] == Health()
    finally:
        await bus.close()


async def _ledger_holds(folder: Path, stream: str, messages: int) -> bool:
    file = folder / "bus" / "ledger.json"
    return file.exists() and json.loads(file.read_bytes())["streams"].get(stream, [0, 0])[1] == messages


async def test_a_full_disk_is_an_alarm_and_submissions_are_refused_at_once_until_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path, 400) as disk:
        async with Cluster(tmp_path) as cluster, aiohttp.ClientSession() as http:
            host = cluster.node("--preset", "local")
            host.folder = disk / "node"
            await host.start()
            mesh = await cluster.client()
            assert await mesh.submit("echo", {"value": 1}, wait_s=30) == {"value": 1}
            filler = fill(disk)
            with contextlib.suppress(QueztlError):  # the write error that the server keeps
                await mesh.bus.store("mesh.event.big", bytes(1 << 20), timeout_s=2.0)
            try:
                await _refused_at_once(http, host, mesh)
            finally:
                filler.unlink()
            await _until_accepted(http, host)
            assert await mesh.submit("echo", {"value": 2}, wait_s=30) == {"value": 2}
            await mesh.bus.store("mesh.event.small", b"x")
            assert not [alarm for alarm in (await _network(http, host))["alarms"] if "full (" in alarm]


async def _refused_at_once(http: Any, node: NodeProcess, mesh: Any) -> None:
    async def refused() -> bool:
        return (await _submit(http, node))[0] == 507

    await eventually(refused, HEALED_WITHIN_S, "submissions are refused")
    began = asyncio.get_running_loop().time()
    status, answer = await _submit(http, node)
    assert status == 507 and asyncio.get_running_loop().time() - began < AT_ONCE_S, answer
    assert "disk" in answer["error"]["message"] and "full" in answer["error"]["message"], answer
    async with http.post(f"{node.api}{API_PREFIX}/blobs", data=b"x") as uploaded:
        assert uploaded.status == 507, await uploaded.text()
    async with http.get(f"{node.api}{API_PREFIX}/readyz") as ready:
        assert ready.status == 503 and "is full" in (await ready.text())
    document = await _network(http, node)
    assert any("is full" in alarm and "free space on it" in alarm for alarm in document["alarms"]), document["alarms"]
    assert "no bus server can store" in document["bus"]["safety"]
    with pytest.raises(BusUnavailable, match="is full"):
        await mesh.submit("echo", {"value": 3}, wait_s=1)


async def _submit(http: Any, node: NodeProcess) -> tuple[int, dict[str, Any]]:
    body = {"workload_type": "echo", "payload": {"value": 1}}
    async with http.post(f"{node.api}{API_PREFIX}/workload/submit", json=body) as answer:
        return answer.status, await answer.json()


async def _network(http: Any, node: NodeProcess) -> dict[str, Any]:
    async with http.get(f"{node.api}{API_PREFIX}/network/status") as answer:
        return dict(await answer.json())


async def _until_accepted(http: Any, node: NodeProcess) -> None:
    async def accepted() -> bool:
        return (await _submit(http, node))[0] == 202

    await eventually(accepted, HEALED_WITHIN_S, "submissions are accepted again")
