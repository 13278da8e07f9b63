"""Whole nodes as processes: every way to submit every kind, and three nodes that find each other unconfigured."""

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
    """A cluster that ends with the test and prints its logs when it fails."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


def network(node: NodeProcess) -> dict[str, Any]:
    """The network status of one node's API."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{node.api}/api/v1.2/network/status", timeout=10) as answer:
        return dict(json.load(answer))


async def publish(mesh: Mesh, kind: str, data: bytes, headers: dict[str, str] | None = None) -> str:
    """Publish to `work.<kind>` as any NATS client does; returns the id of the task."""
    answer = await mesh.bus.request(subjects.ingress(kind), data, headers=headers)
    stored = json.loads(answer.data)
    assert stored["stream"] == subjects.WORK, stored
    return subjects.task_id(await status.epoch(mesh.bus), stored["seq"])


def refused(code: str, *fields: str) -> Expected:
    """Expect a failure at the ingress that names exactly these fields."""

    def expected(end: TaskEnd, _: Any) -> None:
        assert end.state == "failed" and end.error is not None and end.error.code == code, end
        assert sorted(field for field, _ in end.error.faults) == sorted(fields), end.error

    return expected


async def test_every_kind_by_every_interface_of_one_node(cluster: Cluster) -> None:
    """By the SDK, and as JSON and MessagePack by a plain publish; a wrong message gets a failed end."""
    await cluster.node().start()
    mesh = await cluster.client()
    witness = await Witness(mesh.bus).start()
    accepted: dict[str, Expected] = {}
    for kind, payload, expected in mixed(20):
        accepted[(await mesh.start(kind, payload)).id] = expected
        accepted[await publish(mesh, kind, msgspec.msgpack.encode(payload))] = expected
        if isinstance(payload.get("image"), bytes):
            payload["image"] = base64.b64encode(payload["image"]).decode()
        accepted[await publish(mesh, kind, json.dumps(payload).encode())] = expected
        accepted[await publish(mesh, kind, json.dumps(payload).encode(), {"Content-Type": "application/json"})] = (
            expected
        )

    by_number = await publish(mesh, "echo", b'{"value": "by number"}')
    accepted[by_number] = echoed("by number")
    assert (await mesh.wait(by_number, 30)).state == "done"
    assert (await mesh.status(by_number.rpartition("-")[2])).id == by_number
    accepted[await publish(mesh, "crypto_mining", b'{"seconds": 0.1}')] = lambda end, _: done(end)
    accepted[await publish(mesh, "echo", b"")] = echoed(None)

    three = b'{"sleep_s": "long", "size_bytes": -1, "colour": "red"}'
    accepted[await publish(mesh, "echo", three)] = refused(
        "bad_input", "payload.sleep_s", "payload.size_bytes", "payload.colour"
    )
    accepted[await publish(mesh, "echo", b'{"value": ')] = refused("bad_input")
    accepted[await publish(mesh, "telepathy", b"{}")] = refused("unknown_kind")
    with pytest.raises(BusUnavailable):
        await mesh.bus.request("work.echo.any", b"{}")
    await invariants.check(mesh, accepted, witness)


async def test_large_payloads_and_results_are_blobs(cluster: Cluster) -> None:
    """Over 128 KiB in both directions, and equal byte by byte."""
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
        """The claim-checked payload is removed, and the other blob no longer refers to this task."""
        named = await refs.get(f"{blob.blob}.{handle.id}")
        try:
            await mesh.bus.objects.info(sent.blob)
        except NotFound:
            return named is not None and named.value == b"0"
        return False

    await eventually(tidied, 10, "blobs of ended tasks are removed")
    made = await mesh.submit("echo", {"size_bytes": 700_000, "seed": 3}, wait_s=30)
    assert isinstance(made, bytes) and len(made) == 700_000


async def test_three_nodes_started_together_are_one_mesh(cluster: Cluster) -> None:
    """One creates the mesh, two join; every node shows the same three nodes and one leader; labels are respected."""
    nodes = [cluster.node(), cluster.node("--label", "disk=nvme"), cluster.node()]
    await asyncio.gather(*(node.start() for node in nodes))
    assert sorted("created by this node" in node.banner for node in nodes) == [False, False, True]
    mesh = await cluster.client()
    witness = await Witness(mesh.bus).start()
    assert set(await node_records(mesh.bus)) == {node.id for node in nodes}
    views: list[dict[str, Any]] = []

    async def agreed() -> bool:
        views[:] = [await asyncio.to_thread(network, node) for node in nodes]
        states = [
            {listed_node["id"]: listed_node["state"] for listed_node in view["registry"]["nodes"]} for view in views
        ]
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
