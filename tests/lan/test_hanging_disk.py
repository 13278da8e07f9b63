"""The disk of the bus server that leads everything hangs, under work: others lead, and it comes back.

The disk is an image on another disk. When that one takes no writes, the first behaves as a device that does not answer:
each flush sleeps uninterruptibly, and writes go on until the page cache takes no more.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from mesh.bus import admin_api
from mesh.cluster import raft_meta
from mesh.cluster.controller import read_servers
from mesh.errors import QueztlError
from tests.lan.conftest import inside
from tests.lan.office import Scene, grown
from tests.nodes import NodeProcess, eventually
from tests.small_disk import freeze, small_disk

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(800)]

#: How long the disk hangs, seconds.
HANGS_S = 30.0
#: The longest wait of a submission, seconds: the hang is noticed within 4 s, an election takes 4 to 9 s, and a client
#: that was connected to that server notices its silence meanwhile. A busy machine adds to each.
STALL_S = 25.0


@pytest.mark.long
@pytest.mark.parametrize("what", ["writes", "device"])
def test_the_disk_of_the_server_that_leads_hangs(office: list[str], tmp_path: Path, what: str) -> None:
    with small_disk(tmp_path, 2500) as outer:
        inner = outer / "inner"
        inner.mkdir()
        with small_disk(inner, 2000) as room:
            frozen = room if what == "writes" else outer
            try:
                inside(office[-1], _hang(office, tmp_path, room, frozen))
            finally:
                freeze(frozen, False)


async def lead_everything(scene: Scene, node: NodeProcess) -> None:
    """Let the bus server of `node` lead the meta group and all streams."""
    name = next(server.name for server in await read_servers(scene.bus) if server.node == node.id)

    async def leads() -> bool:
        with contextlib.suppress(QueztlError):  # while a leader is elected
            if await scene.leads() is not node:
                await admin_api.move_meta_leader(await scene.system(), name)
            streams = await raft_meta.list_streams(scene.bus)
            for stream in streams:
                if stream.leader and stream.leader != name:
                    await scene.bus.move_leader(stream.name, name)
            return all(stream.leader == name for stream in streams) and await scene.leads() is node
        return False

    await eventually(leads, 60, "one server leads everything")


async def _hang(machines: list[str], folder: Path, room: Path, frozen: Path) -> None:
    async with grown(folder, machines, small=room) as scene:
        node = scene.office.nodes[0]
        await lead_everything(scene, node)

        async def hang() -> None:
            freeze(frozen, True)
            try:
                await asyncio.sleep(HANGS_S)
            finally:
                freeze(frozen, False)

        what = "disk" if frozen == room else "device of the disk"
        assert await scene.scenario(f"{what} of the server that leads hangs for 30 s", hang) < STALL_S
        await scene.until_safe()
