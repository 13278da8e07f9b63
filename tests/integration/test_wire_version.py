"""A mesh of another wire version: nodes and clients are refused with one sentence that names both versions."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mesh import subjects
from mesh.bus.client import Bus
from mesh.client import Mesh
from mesh.coordination import MeshRecord
from mesh.errors import IncompatibleMesh
from mesh.membership.mesh_record import check_wire_version, create_mesh_record, read_mesh_record
from mesh.merge import mover
from mesh.messages import WIRE_VERSION, encode
from mesh.sync import SyncMesh
from tests.integration.conftest import BusServer
from tests.integration.test_bad_starts import refused_with, start
from tests.nodes import ROOT, Cluster

#: The record as it was written before it had a wire version.
OLD = {"id": "mold", "name": "old", "founded_at": 1.0, "founder": "n1", "epoch": "w1"}


@pytest.fixture
async def bus(bus_server: BusServer) -> Bus:
    """A connection to the real server."""
    return await bus_server.connect("test")


async def put(bus: Bus, facts: dict[str, object]) -> None:
    await bus.kv(subjects.KV_MESH).put(subjects.MESH_KEY, encode(facts))


async def test_a_bus_without_a_mesh_has_no_record(tmp_path: Path) -> None:
    server = BusServer(tmp_path)
    await server.start()
    try:
        assert await read_mesh_record(await server.connect("test")) is None
    finally:
        await server.close()


async def test_a_record_without_the_field_is_of_version_1(bus: Bus) -> None:
    assert await read_mesh_record(bus) is None
    await put(bus, OLD)
    record = await read_mesh_record(bus)
    assert record == MeshRecord(**OLD, wire_version=1)


@pytest.mark.parametrize(("theirs", "remedy"), [(1, "upgrade the mesh's nodes"), (9, "upgrade this program")])
def test_the_sentence_names_both_versions_and_what_to_do(theirs: int, remedy: str) -> None:
    with pytest.raises(IncompatibleMesh) as refused:
        check_wire_version(MeshRecord(name="blue", wire_version=theirs), own=5)
    for part in ("mesh blue", f"version {theirs}", "version 5", remedy):
        assert part in refused.value.message
    assert refused.value.exit_code == 2
    check_wire_version(MeshRecord(name="blue", wire_version=5), own=5)


async def test_a_client_is_refused(bus_server: BusServer, bus: Bus) -> None:
    await put(bus, OLD)
    with pytest.raises(IncompatibleMesh, match=f"version 1, this program speaks version {WIRE_VERSION}"):
        async with Mesh(bus_server.url):
            pass
    await put(bus, OLD | {"wire_version": WIRE_VERSION})
    async with Mesh(bus_server.url):
        pass


async def test_a_script_and_the_command_line_are_refused(bus_server: BusServer, bus: Bus) -> None:
    await put(bus, OLD | {"wire_version": 99})
    with pytest.raises(IncompatibleMesh, match="99"):
        SyncMesh(bus_server.url).connect()
    command = [sys.executable, "-m", "api.cli.main", "--url", bus_server.url, "submit", "echo", "{}"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)  # noqa: ASYNC221
    assert ended.returncode == 2 and "version 99" in ended.stderr and "Traceback" not in ended.stderr


async def test_a_node_does_not_join(bus_server: BusServer, bus: Bus, tmp_path: Path) -> None:
    await put(bus, OLD)
    ended = start(tmp_path / "node", "--join", bus_server.url)
    refused_with(ended, "version 1", f"version {WIRE_VERSION}", "upgrade the mesh's nodes")


async def test_a_mesh_of_another_version_is_not_merged_with(bus: Bus) -> None:
    await put(bus, OLD)
    with pytest.raises(IncompatibleMesh):
        await mover.read_mesh_summary(bus)


async def test_a_node_does_not_start_on_the_store_of_another_version(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        (node,) = await cluster.start(1)
        mesh = await cluster.client()
        record = await read_mesh_record(mesh.bus)
        assert record is not None and record.wire_version == WIRE_VERSION
        node.send(signal.SIGSTOP)  # it would write the record again: in a mesh of its own version this one is forged
        await put(mesh.bus, OLD | {"id": record.id, "name": record.name})
        await node.kill9()
        identity = node.folder / "node.json"
        stored = json.loads(identity.read_bytes())
        assert stored.pop("wire_version") == WIRE_VERSION  # an earlier version did not write it
        identity.write_text(json.dumps(stored))
        refused_with(start(node.folder, "--mesh", record.name), "version 1", f"version {WIRE_VERSION}", "--data")


async def test_the_record_is_written_once(bus: Bus) -> None:
    await create_mesh_record(bus, MeshRecord(id="m1", wire_version=WIRE_VERSION))
    with pytest.raises(Exception, match="exists already"):
        await create_mesh_record(bus, MeshRecord(id="m2", wire_version=WIRE_VERSION))
