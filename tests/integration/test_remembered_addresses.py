"""Addresses that nodes remember, or that are given to them, and that are another mesh's by now, or nobody's."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from tests.nodes import Cluster, NodeProcess
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
