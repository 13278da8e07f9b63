"""Whole nodes as processes: every way in, every kind, and three nodes that find each other with nothing configured."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh import subjects
from mesh.client import Mesh
from mesh.errors import BusUnavailable, NotFound
from mesh.messages import TaskEnd
from mesh.tasks import records, status
from tests import invariants
from tests.faults.mixed import done, echoed, mixed
from tests.invariants import Expected, Witness
from tests.nodes import Cluster, NodeProcess, eventually, lease
from tests.nodes import records as node_records


@pytest.fixture
async def cluster(tmp_path: Path):
    """Nodes that are ended with the test, and whose logs are shown when it failed."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


def network(node: NodeProcess) -> dict[str, Any]:
    """What one node's API says of the mesh."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{node.api}/api/v1.2/network/status", timeout=10) as answer:
        return dict(json.load(answer))


async def knock(mesh: Mesh, kind: str, data: bytes, headers: dict[str, str] | None = None) -> str:
    """Publish to `work.<kind>` as any NATS client would; the id of the task it becomes."""
    answer = await mesh.bus.request(subjects.ingress(kind), data, headers=headers)
    stored = json.loads(answer.data)
    assert stored["stream"] == subjects.WORK, stored
    return subjects.task_id(await status.epoch(mesh.bus), stored["seq"])


def refused(code: str, *fields: str) -> Expected:
    """Failed at the door, with exactly these fields named."""

    def expected(end: TaskEnd, _: Any) -> None:
        assert end.state == "failed" and end.error is not None and end.error.code == code, end
        assert sorted(field for field, _ in end.error.faults) == sorted(fields), end.error

    return expected


async def test_every_kind_by_every_door_of_one_node(cluster: Cluster) -> None:
    """By the SDK, and as JSON and MessagePack by a plain publish; what is wrong is answered by an end."""
    await cluster.node().start()
    mesh = await cluster.client()
    witness = await Witness(mesh.bus).start()
    accepted: dict[str, Expected] = {}
    for kind, payload, expected in mixed(20):
        accepted[(await mesh.start(kind, payload)).id] = expected
        accepted[await knock(mesh, kind, msgspec.msgpack.encode(payload))] = expected
        if isinstance(payload.get("image"), bytes):
            payload["image"] = base64.b64encode(payload["image"]).decode()
        accepted[await knock(mesh, kind, json.dumps(payload).encode())] = expected
        accepted[await knock(mesh, kind, json.dumps(payload).encode(), {"Content-Type": "application/json"})] = expected

    by_number = await knock(mesh, "echo", b'{"value": "by number"}')
    accepted[by_number] = echoed("by number")
    assert (await mesh.wait(by_number, 30)).state == "done"
    assert (await mesh.status(by_number.rpartition("-")[2])).id == by_number
    accepted[await knock(mesh, "crypto_mining", b'{"seconds": 0.1}')] = lambda end, _: done(end)
    accepted[await knock(mesh, "echo", b"")] = echoed(None)

    three = b'{"sleep_s": "long", "size_bytes": -1, "colour": "red"}'
    accepted[await knock(mesh, "echo", three)] = refused(
        "bad_input", "payload.sleep_s", "payload.size_bytes", "payload.colour"
    )
    accepted[await knock(mesh, "echo", b'{"value": ')] = refused("bad_input")
    accepted[await knock(mesh, "telepathy", b"{}")] = refused("unknown_kind")
    with pytest.raises(BusUnavailable):
        await mesh.bus.request("work.echo.any", b"{}")
    await invariants.check(mesh, accepted, witness)


async def test_large_payloads_and_results_travel_as_blobs(cluster: Cluster) -> None:
    """Over 128 KiB in both directions, and back byte by byte."""
    await cluster.node().start()
    mesh = await cluster.client()
    large = {"text": "ü" * 200_000}
    handle = await mesh.start("echo", {"value": large, "sleep_s": 0.5})
    sent = (await records.read_waiting(mesh.bus, handle.id)).payload_ref
    assert await handle.result() == {"value": large}
    blob = await mesh.put_blob(b"x" * 1_000_000)
    handle = await mesh.start("echo", {"data": {"blob": blob.blob}})
    assert (await handle.result())["data_bytes"] == 1_000_000
    refs = mesh.bus.kv(subjects.KV_BLOB_REFS)

    async def tidied() -> bool:
        """The payload that was claim-checked is gone, and the other blob is no longer this task's."""
        named = await refs.get(f"{blob.blob}.{handle.id}")
        try:
            await mesh.bus.objects.info(sent.blob)
        except NotFound:
            return named is not None and named.value == b"0"
        return False

    await eventually(tidied, 10, "what belongs to tasks that ended goes with them")
    made = await mesh.submit("echo", {"size_bytes": 700_000, "seed": 3}, wait_s=30)
    assert isinstance(made, bytes) and len(made) == 700_000


async def test_three_nodes_started_together_are_one_mesh(cluster: Cluster) -> None:
    """One founds, two join; every node shows the same three, one master; labels decide who gets what."""
    nodes = [cluster.node(), cluster.node("--label", "disk=nvme"), cluster.node()]
    await asyncio.gather(*(node.start() for node in nodes))
    assert sorted("created by this node" in node.banner for node in nodes) == [False, False, True]
    mesh = await cluster.client()
    witness = await Witness(mesh.bus).start()
    assert set(await node_records(mesh.bus)) == {node.id for node in nodes}
    views: list[dict[str, Any]] = []

    async def agreed() -> bool:
        views[:] = [await asyncio.to_thread(network, node) for node in nodes]
        states = [{one["id"]: one["state"] for one in view["registry"]["nodes"]} for view in views]
        return all(state == {node.id: "up" for node in nodes} for state in states) and all(
            view["leader"] == views[0]["leader"] != "" for view in views
        )

    await eventually(agreed, 15, lambda: f"all agree: {views}")
    held = await lease(mesh.bus)
    assert held is not None and {view["leader"] for view in views} == {held.node}
    assert all(view["registry"]["total_nodes"] == 3 for view in views)

    accepted: dict[str, Expected] = {}
    for number in range(6):
        handle = await mesh.start("echo", {"value": number}, requires={"labels": {"disk": "nvme"}})
        accepted[handle.id] = echoed(number)
        assert (await handle.end(20)).node == nodes[1].id

    nobody = await mesh.start("echo", {"value": "gold"}, requires={"labels": {"metal": "gold"}})
    accepted[nobody.id] = echoed("gold")
    view = await mesh.status(nobody.id)
    assert view.state == "queued" and not view.waiting_helps
    assert any("metal=gold" in reason for reason in view.waiting_for), view.waiting_for
    gold = await cluster.node("--label", "metal=gold").start()
    assert (await nobody.end(20)).node == gold.id
    await invariants.check(mesh, accepted, witness)
