"""Well-formed records that a stranger wrote: none of them stops a start, moves a node or a store, or stays."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from mesh import subjects
from mesh.client import Mesh
from mesh.coordination import MeshRecord
from mesh.membership.mesh_record import contradictions
from mesh.messages import WIRE_VERSION, decode_any, encode
from tests.nodes import Cluster, NodeProcess, eventually

IDENTITY = f"$KV.{subjects.KV_MESH}.{subjects.MESH_KEY}"


@pytest.fixture
async def cluster(tmp_path: Path):
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


async def works(mesh: Mesh, node: NodeProcess) -> None:
    """It does what it is given."""
    end = await (await mesh.start("echo", {"value": 1}, requires={"node": node.id})).end(30)
    assert (end.state, end.node) == ("done", node.id)


async def identity(mesh: Mesh) -> dict[str, object]:
    """The record of the mesh, as it is stored."""
    entry = await mesh.bus.kv(subjects.KV_MESH).get(subjects.MESH_KEY)
    assert entry is not None
    return decode_any(entry.value)


def test_only_what_a_node_knows_is_compared_with_the_record() -> None:
    record = MeshRecord(id="m1", name="home", wire_version=2)
    assert not contradictions(record, {})
    assert not contradictions(record, {"id": "m1", "name": "home", "wire_version": 2})
    assert contradictions(record, {"id": "m2", "name": "home", "wire_version": 1}) == [
        "its id is 'm1', not 'm2'",
        "its wire_version is 2, not 1",
    ]


async def test_nodes_start_over_a_forged_record_of_the_mesh_and_write_it_again(cluster: Cluster) -> None:
    """A node remembered the stranger's id, and then refused its own store; another name or version ended it, too."""
    host, guest = await cluster.start(1, 1)
    mesh = await cluster.client()
    true = await identity(mesh)

    async def repaired() -> bool:
        return await identity(mesh) == true

    for wrong in ({"id": "mstranger"}, {"name": "elsewhere"}, {"wire_version": 99}):
        await mesh.bus.store(IDENTITY, encode(true | wrong))
        await eventually(repaired, 10, host.log)

    # The same while nobody can repair it: then it is found at the next start, by the host, and by a guest.
    for stopped in (host, guest):
        stopped.send(signal.SIGSTOP)
    forged = true | {"id": "mstranger", "name": "elsewhere", "wire_version": 99, "founder": "nobody", "epoch": "x"}
    await mesh.bus.store(IDENTITY, encode(forged))
    for stopped in (host, guest):
        await stopped.kill9()
    await host.start()
    assert await identity(mesh) == true and "was forged" in host.log(200_000)
    await works(mesh, host)
    await mesh.bus.store(IDENTITY, encode(forged))
    await guest.start()
    await works(mesh, guest)
    for node in (host, guest):
        stored = json.loads((node.folder / "node.json").read_bytes())
        assert (stored["mesh"]["id"], stored["mesh"]["name"]) == (true["id"], true["name"])
        assert stored["wire_version"] == WIRE_VERSION and stored["epoch"] == true["epoch"]
    await eventually(repaired, 10, host.log)
