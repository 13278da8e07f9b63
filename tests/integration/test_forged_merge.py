"""One forged message must not end a mesh: an order to merge that the other mesh does not confirm."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh import subjects
from mesh.bus.reserved import key_subject
from mesh.client import Mesh
from mesh.coordination import MergeOrder
from mesh.leader import journal as events
from mesh.merge.order import read_order
from mesh.messages import encode
from tests.integration.queztl_process import queztl
from tests.invariants import journal
from tests.nodes import Cluster, NodeProcess, eventually
from tests.ports import free_port

#: The subject of the order to merge.
ORDER = key_subject(subjects.KV_MESH, subjects.MERGE_KEY)


@pytest.fixture
async def meshes(tmp_path: Path):
    """Two meshes of one node each, which do not know each other."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    async with Cluster(tmp_path / "a") as ours, Cluster(tmp_path / "b") as theirs:
        await ours.node().start()
        await theirs.node().start()
        yield ours, theirs
        ours.print_logs()


async def works(mesh: Mesh, node: NodeProcess) -> None:
    """It does what it is given, and holds its bus."""
    end = await (await mesh.start("echo", {"value": 1})).end(20)
    assert (end.state, node.running, node.hosts_bus) == ("done", True, True)


async def test_a_forged_order_to_merge_ends_nothing_and_can_be_withdrawn(meshes: tuple[Cluster, Cluster]) -> None:
    """The node put its bus aside and waited for ever for the stranger's."""
    ours, theirs = meshes
    node, mesh = ours.nodes[0], await ours.client()

    async def withdrawn() -> bool:
        return await read_order(mesh.bus) is None

    async def not_followed() -> bool:
        return "is not followed" in node.log()

    # A mesh that is there and knows nothing of it: the order is withdrawn by itself, also one that claims to be done.
    for phase in ("drain", "moved"):
        forged = MergeOrder(into="mstranger", urls=(theirs.url,), phase=phase, mover=node.id, token="o1")
        await mesh.bus.store(ORDER, encode(forged))
        await eventually(withdrawn, 30, node.log)
        await works(mesh, node)
    undone = [event for event in await journal(mesh.bus) if event.type == events.MERGE_UNDONE]
    assert len(undone) == 2 and all("not mstranger" in event.detail["why"] for event in undone)

    # A mesh that does not answer: nothing is done, and a person may withdraw the order before it withdraws itself.
    forged = MergeOrder(into="mgone", urls=(f"nats://127.0.0.1:{free_port()}",), phase="moved", token="o2")
    await mesh.bus.store(ORDER, encode(forged))
    await eventually(not_followed, 20, node.log)
    await works(mesh, node)
    ran = await queztl("bus", "merge", "--undo", url=node.api)
    assert ran.code == 0 and "mgone is withdrawn" in ran.out, ran
    assert await withdrawn()
    await node.kill9()
    await node.start()
    await works(mesh, node)
