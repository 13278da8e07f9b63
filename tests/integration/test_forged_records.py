"""Well-formed records that a stranger wrote: none of them stops a start, moves a node or a store, or stays."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as replace_struct

from mesh import decoding, subjects
from mesh.bus.client import Bus
from mesh.bus.server.data_dir import put_aside, read_marker
from mesh.bus.streams import declare_streams
from mesh.client import Mesh
from mesh.cluster import restart_turn
from mesh.cluster.restart_turn import take_turn
from mesh.config import LOCAL
from mesh.coordination import HostingAnswer, HostingRequest, MergeOrder, MeshRecord, Pool, ServerRecord
from mesh.decoding import Unreadable
from mesh.discovery.identity import MeshIdentity, open_data_dir
from mesh.errors import NotFound
from mesh.lanes import class_of, pool_name
from mesh.membership.mesh_record import contradictions, create_mesh_record, repair_mesh_record
from mesh.merge.order import CLOSED, LEAST_LIMIT, limit_after, withdraw
from mesh.messages import CLAIM_CHECK_BYTES, WIRE_VERSION, decode_any, encode
from mesh.tasks import status
from node.config import build
from node.lifecycle import own_record
from node.lifecycle.waiting import Waiting
from tests.integration.bus_server_harness import SETTINGS, Harness, harness
from tests.nodes import Cluster, NodeProcess, eventually, lease

__all__ = ["harness"]

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


@given(st.integers(-10, 1 << 70))
def test_a_queue_that_is_opened_again_has_room_for_a_task(recorded: int) -> None:
    limit = limit_after(recorded, 4 << 30)
    assert limit == -1 or CLAIM_CHECK_BYTES <= limit < 1 << 63
    assert limit in (recorded, 4 << 30) and (limit == recorded or not LEAST_LIMIT <= recorded <= 1 << 50)


@given(st.integers(1, 1 << 20), st.integers(1, 1 << 20))
def test_the_record_of_a_pool_counts_only_under_the_name_of_its_requirements(true: int, forged: int) -> None:
    """A forged one sent a lane's work to nobody, or to nodes that then refused it."""
    requires = class_of({"memory_mb": true})
    name = pool_name(requires)
    assert decoding.pool(encode(Pool(name, requires))) == Pool(name, requires)
    found = decoding.pool(encode(Pool(name, class_of({"memory_mb": forged}))))
    assert isinstance(found, Unreadable) == (class_of({"memory_mb": forged}) != requires)


def test_a_request_to_host_that_fails_does_not_replace_the_store_that_is_kept_aside(tmp_path: Path) -> None:
    """Anybody can send one, with routes to nowhere."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "old").touch()
    (tmp_path / "founded.json").touch()
    put_aside(tmp_path)
    assert (tmp_path / "store.removed" / "old").exists() and not (tmp_path / "store").exists()
    (tmp_path / "store").mkdir()  # of a server that never became a member: without a marker
    put_aside(tmp_path)
    assert (tmp_path / "store.removed" / "old").exists() and not (tmp_path / "store").exists()


@pytest.fixture
async def bus(harness: Harness):
    """The bus of a real mesh, with its streams."""
    server = harness.bus(store_max_bytes=64 << 30)
    bus = await Bus.connect((await server.start()).client_urls, name="test", config=LOCAL)
    await declare_streams(bus, LOCAL, free_bytes=4 << 30)
    yield bus
    await bus.close()


async def test_forged_records_of_a_lone_server_hold_nothing_up(
    bus: Bus, harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store put aside, no restart of a bus server ever again, and a queue that nothing fits in."""
    kv, node = bus.kv(subjects.KV_MESH), SETTINGS.node_id
    marker, urls = read_marker(harness.folder), harness.bus_urls
    assert marker is not None
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "node.json").write_text(json.dumps({"node_id": node}))
    data = open_data_dir(tmp_path / "data")
    mesh = MeshIdentity(SETTINGS.mesh_id, SETTINGS.mesh_name, 1.0, node)
    # pyrefly: ignore[bad-argument-type]  `is_member` does not use discovery
    waiting = Waiting(build({"interface": "lo"}, {}), data, mesh, None, "", "", lambda _: None, lambda _: None)
    assert await waiting.is_member(marker, urls)  # deleted, or never there
    await kv.put(subjects.server_key(node), encode(ServerRecord(node=node, name="nelse~1", client_urls=urls)))
    assert await waiting.is_member(marker, urls)
    assert not await waiting.is_member(replace(marker, server_name=f"{node}~gone"), urls)  # neither here nor there
    data.close()

    await kv.put(subjects.RESTART_KEY, b"nobody")
    assert not await take_turn(bus, node)
    monkeypatch.setattr(restart_turn, "TURN_S", 1)

    async def has_turn() -> bool:
        return await take_turn(bus, node)

    await eventually(has_turn, 10, "a turn without an end is never over")

    before = (await bus.stream_info(subjects.WORK)).config["max_bytes"]
    order = MergeOrder(into="mstranger", urls=("nats://127.0.0.1:1",), token="o1", work_max_bytes=1)
    await kv.put(subjects.MERGE_KEY, encode(order))
    assert await withdraw(bus) is not None
    assert (await bus.stream_info(subjects.WORK)).config["max_bytes"] == before
    await bus.update_stream(subjects.WORK, max_bytes=CLOSED)
    await kv.put(subjects.MERGE_KEY, encode(order))
    assert await withdraw(bus) is not None
    assert (await bus.stream_info(subjects.WORK)).config["max_bytes"] == LOCAL.work_max_bytes


async def test_the_epoch_of_ids_is_that_of_the_stream_whatever_the_record_says(bus: Bus) -> None:
    """Two nodes with different ones give one message two ids, and it runs twice."""
    mesh = MeshIdentity(SETTINGS.mesh_id, SETTINGS.mesh_name, 1.0, SETTINGS.node_id)
    epoch = await own_record.read_epoch(bus)
    await create_mesh_record(bus, own_record.new_record(mesh, epoch))
    true = await own_record.read(bus)
    assert true.epoch == epoch == await status.epoch(bus)
    await bus.store(IDENTITY, encode(replace_struct(true, epoch="wforged")))
    assert await own_record.read(bus) == true
    assert await repair_mesh_record(bus, true, {"epoch": epoch}) and await status.epoch(bus) == epoch


async def test_nodes_start_over_a_forged_record_of_the_mesh_and_write_it_again(cluster: Cluster) -> None:
    """A node remembered the stranger's id, and then refused its own store; another name or version ended it, too."""
    host, guest = await cluster.start(1, 1)
    mesh = await cluster.client()
    true = await identity(mesh)

    async def repaired() -> bool:
        return await identity(mesh) == true

    for wrong in ({"id": "mstranger"}, {"name": "elsewhere"}, {"wire_version": 99}, {"epoch": "x"}):
        await mesh.bus.store(IDENTITY, encode(true | wrong))
        await eventually(repaired, 10, host.log)

    await _requests_and_servers(mesh, host, guest)

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
    await _messages_of_the_ingress_keep_their_ids(mesh, true)
    await mesh.bus.store(IDENTITY, encode(forged))
    await guest.start()
    await works(mesh, guest)
    for node in (host, guest):
        stored = json.loads((node.folder / "node.json").read_bytes())
        assert (stored["mesh"]["id"], stored["mesh"]["name"]) == (true["id"], true["name"])
        assert stored["wire_version"] == WIRE_VERSION and stored["epoch"] == true["epoch"]
    await eventually(repaired, 10, host.log)


async def _messages_of_the_ingress_keep_their_ids(mesh: Mesh, true: dict[str, object]) -> None:
    """A node that started while the epoch was forged gave them other ids than the other nodes."""
    stored = json.loads((await mesh.bus.request(subjects.ingress("echo"), b'{"value": 5}')).data)
    task = f"{true['epoch']}-{stored['seq']}"

    async def taken() -> bool:
        try:
            return bool(await mesh.status(task))
        except NotFound:
            return False

    await eventually(taken, 20, "the message is taken from the ingress under its id")
    assert (await mesh.result(task, wait_s=20))["value"] == 5


async def _requests_and_servers(mesh: Mesh, host: NodeProcess, guest: NodeProcess) -> None:
    """A request with a fence that no leader has shuts out no later one; forged records of bus servers don't stay."""

    async def asked(fence: int) -> str:
        request = HostingRequest(do="stop", fence=fence, name="nobody~1")
        answer = await mesh.bus.request(subjects.bus_host(guest.id), encode(request))
        found = decoding.hosting_answer(answer.data)
        assert isinstance(found, HostingAnswer)
        return found.error

    assert "no leader of this mesh" in await asked(1 << 60)

    async def renewed() -> bool:
        term = await lease(mesh.bus)
        return term is not None and term.fence > 0

    await eventually(renewed, 10, host.log)
    entry, term = await mesh.bus.kv(subjects.KV_LEASE).get(subjects.LEASE_KEY), await lease(mesh.bus)
    assert entry is not None and term is not None
    # A revision that the bucket has given, and with which no term began: the term's own fence was too low after it.
    assert entry.revision > term.fence and "no leader of this mesh" in await asked(entry.revision)
    assert not await asked(term.fence)
    kv = mesh.bus.kv(subjects.KV_MESH)
    stranger = ("nats://127.0.0.1:1",)
    true = await kv.get(subjects.server_key(host.id))
    assert true is not None
    for node in (host, guest):  # everything but the name is right, so only that tells
        forged = decode_any(true.value) | {"node": node.id, "name": f"{node.id}~forged"}
        await kv.put(subjects.server_key(node.id), encode(forged))

    async def repaired() -> bool:
        entries = await kv.entries(subjects.SERVER_KEYS)
        return [(entry.key, decode_any(entry.value)["name"]) for entry in entries] == [(f"server.{host.id}", host.id)]

    await eventually(repaired, 15, guest.log)

    # The host's server is the only one, whatever records say: it would have put its store aside.
    await kv.put(
        "server.nelsewhere", encode(ServerRecord(node="nelsewhere", name="nelsewhere~1", client_urls=stranger))
    )

    async def ask_host(do: str) -> str:
        request = HostingRequest(do=do, fence=1, name=host.id)
        found = await mesh.bus.request(subjects.bus_host(host.id), encode(request), 10.0)
        answer = decoding.hosting_answer(found.data)
        assert isinstance(answer, HostingAnswer)
        return answer.error

    assert "is a member" in await ask_host("stop")
    # One message restarted the only bus server, again and again.
    assert "not its turn" in await ask_host("restart")
    await kv.delete("server.nelsewhere")
    assert host.hosts_bus
