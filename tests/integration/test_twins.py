"""Two nodes with one identity on one bus: a copied data directory. The real programs on loopback."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from mesh import node_api, subjects
from mesh.client import Mesh
from mesh.coordination import IdentityClaim
from mesh.leader import journal as events
from mesh.messages import Heartbeat, encode
from node.lifecycle import twins
from tests.integration.test_joining import refused
from tests.invariants import journal
from tests.nodes import Cluster, NodeProcess, eventually, records


@pytest.fixture
async def cluster(tmp_path: Path):
    """The host of the bus, and a node with a name of its own, `original`."""
    async with Cluster(tmp_path) as made:
        await made.start(1, 1)
        yield made
        made.print_logs()


def copied(original: NodeProcess, to: Path) -> Path:
    """A copy of its data directory, made while it runs."""
    shutil.copytree(original.folder, to, ignore=shutil.ignore_patterns("lock", "work", "spool"))
    return to


async def runs(mesh: Mesh, node: NodeProcess) -> None:
    """Work that asks for this node is done by it."""
    end = await (await mesh.start("echo", {"value": node.id}, requires={"node": node.id})).end(20)
    assert (end.state, end.node, node.running) == ("done", node.id, True)


async def node_document(api: str, node: str) -> tuple[dict, list[str]]:
    """(the node as that API shows it, the alarms)"""
    document = await node_api.call(api, "GET", "/network/status")
    nodes = {shown["id"]: shown for shown in document["registry"]["nodes"]}
    return nodes.get(node, {}), document["alarms"]


async def test_a_restart_is_no_twin_and_a_forged_claim_ends_nobody_but_a_copy_is_told_so(cluster: Cluster) -> None:
    """The original was "gone" for all nodes after the copy was switched off, without a message."""
    host, original = cluster.nodes
    mesh = await cluster.client()
    for leave in (original.terminate, original.kill9):
        await leave()
        await original.start()
    # A claim that would go on instead of this node; nobody answers for it when the node asks.
    forged = IdentityClaim(node=original.id, incarnation="i0", session="forged", ticket=1)
    mesh.bus.send(subjects.identity(original.id), encode(forged))
    await asyncio.sleep(twins.ANSWER_WITHIN_S * 2)  # the node asks, waits that long for an answer, and would end
    await runs(mesh, original)
    shown, alarms = await node_document(host.api, original.id)
    assert (shown["twin"], alarms, (await records(mesh.bus))[original.id].state) == ("", [], "up")

    message = await refused(
        copied(original, cluster.folder / "copy"), "--mesh", cluster.mesh_name, "--join", cluster.url
    )
    assert original.id in message and "runs on" in message and "empty --data" in message, message

    async def reported() -> bool:
        shown, alarms = await node_document(host.api, original.id)
        return bool(shown.get("twin")) and any(original.id in alarm and "Two machines" in alarm for alarm in alarms)

    await eventually(reported, 20, "the mesh says which machines")
    assert events.NODE_TWIN in {event.type for event in await journal(mesh.bus) if event.node == original.id}
    assert "Two machines ran as the node" in original.log()
    await runs(mesh, original)
    shown, _ = await node_document(host.api, original.id)
    assert shown["state"] == "up"


async def test_a_forged_record_or_heartbeat_takes_no_living_node_away(cluster: Cluster) -> None:
    """The node was "left", or deleted from the mesh, for everybody until it was started again."""
    host, node = cluster.nodes
    mesh = await cluster.client()
    nodes = mesh.bus.kv(subjects.KV_NODES)
    own = (await records(mesh.bus))[node.id]

    async def is_there() -> bool:
        shown, _ = await node_document(host.api, node.id)
        return shown.get("state") == "up" and (await records(mesh.bus)).get(node.id) is not None

    async def is_written_again() -> bool:
        entry = await nodes.get(node.id)
        return entry is not None and entry.revision > forged

    for forge in (b"\xc1", encode(replace(own, state="left")), encode(replace(own, incarnation="iforged")), b""):
        forged = await nodes.put(node.id, forge) if forge else (await nodes.get(node.id)).revision
        if not forge:
            await nodes.delete(node.id)
        await eventually(is_written_again, 20, node.log)
        await eventually(is_there, 20, node.log)
        assert (await records(mesh.bus))[node.id].incarnation == own.incarnation
    for state, number in (("up", 1 << 60), ("left", 1 << 61)):
        forged = Heartbeat(node=node.id, incarnation=own.incarnation, seq=number, state=state)
        mesh.bus.send(subjects.heartbeat(node.id), encode(forged))
        await asyncio.sleep(4.0)  # longer than a silent node counts as there
        await eventually(is_there, 20, node.log)
    await runs(mesh, node)


async def test_two_that_run_already_become_one_and_the_first_goes_on(cluster: Cluster) -> None:
    """The copy could not ask when it started: the original did not answer in time."""
    host, original = cluster.nodes
    mesh = await cluster.client()
    copy = cluster.node()
    copied(original, copy.folder)
    original.freeze()
    await copy.start()
    assert copy.id == original.id
    original.thaw()

    async def copy_ended() -> bool:
        return not copy.running

    await eventually(copy_ended, 30, copy.log)
    assert f"The node {original.id} runs on" in copy.log()

    async def recorded() -> bool:
        shown, _ = await node_document(host.api, original.id)
        return shown.get("state") == "up"

    await eventually(recorded, 20, original.log)
    assert original.running
    await runs(mesh, original)
    # With the original gone, the copy may be the node.
    await original.kill9()
    await copy.start()
    await runs(mesh, copy)
