"""Addresses that nodes remember, or that are given to them, and that are another mesh's by now, or nobody's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from mesh.bus.wire import STRANGER_AGAIN_S
from tests.nodes import Cluster, NodeProcess, eventually, records
from tests.ports import free_port


def _remember(node: NodeProcess, urls: list[str]) -> None:
    """Replace what the node remembers of where its bus is."""
    file = node.folder / "node.json"
    file.write_text(json.dumps(json.loads(file.read_bytes()) | {"bus_urls": urls}))


async def test_another_mesh_at_a_remembered_address_is_not_taken_for_this_one(tmp_path: Path) -> None:
    """The host kept its store aside for that, and the other node ended. Its --join is out of date, too."""
    folders = [tmp_path / name for name in ("ours", "theirs")]
    for folder in folders:
        folder.mkdir()
    async with Cluster(folders[0]) as cluster, Cluster(folders[1]) as other:
        (stranger,) = await other.start(1)
        host, guest = await cluster.start(1, 1)
        mesh = await cluster.client()
        handle = await mesh.start("echo", {"value": 1})
        assert await handle.result() == {"value": 1}
        await asyncio.gather(host.kill9(), guest.kill9())
        marker = host.folder / "bus" / "founded.json"
        marker.write_text(json.dumps(json.loads(marker.read_bytes()) | {"peers": [["127.0.0.1", free_port()]]}))
        for node in (host, guest):
            _remember(node, [other.url])
        guest.arguments = (*guest.arguments, "--join", f"nats://127.0.0.1:{free_port()}")
        await asyncio.gather(guest.start(), host.start())
        assert not (host.folder / "bus" / "store.removed").exists()
        assert (await mesh.status(handle.id)).state == "done"
        end = await (await mesh.start("echo", {"value": 2}, requires={"node": guest.id})).end(20)
        assert (end.state, end.node) == ("done", guest.id)
        assert stranger.running


async def test_a_running_node_leaves_a_server_of_another_mesh_at_the_address_of_its_own(tmp_path: Path) -> None:
    """It became a client of the stranger: it took the stranger's tasks, and was missing in its own mesh for good."""
    folders = [tmp_path / name for name in ("ours", "theirs")]
    for folder in folders:
        folder.mkdir()
    async with Cluster(folders[0]) as cluster, Cluster(folders[1]) as other:
        host, guest = await cluster.start(1, 1)
        client = await cluster.client()
        await host.kill9()
        other.bus_port = cluster.bus_port
        stranger = await other.node().start()
        theirs = await other.client()

        async def left_alone() -> bool:
            return "is left alone" in guest.log()

        await eventually(left_alone, 20, guest.log)
        handle = await theirs.start("echo", {"value": 1}, requires={"node": guest.id})
        await asyncio.sleep(2 * STRANGER_AGAIN_S)  # two attempts of the guest, and its client's
        assert (await theirs.status(handle.id)).state == "queued" and not client.bus.connected
        assert list(await records(theirs.bus)) == [stranger.id]
        await stranger.kill9()
        await host.start()
        end = await (await client.start("echo", {"value": 2}, requires={"node": guest.id})).end(30)
        assert (end.state, end.node) == ("done", guest.id)
