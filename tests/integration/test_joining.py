"""Ways to join a mesh without multicast: `--join`, `WorkerNode`, and a plain POST to nodes/register."""

from __future__ import annotations

import asyncio
import json
import platform
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import nats
import psutil
import pytest

from mesh.client import Mesh
from mesh.errors import CannotStart
from mesh.leader import journal as events
from node.worker_node import WorkerNode
from tests.integration.queztl_process import environment
from tests.invariants import journal
from tests.nodes import ROOT, Cluster, eventually, records
from tests.ports import free_port

V = "/api/v1.2"


@pytest.fixture
async def cluster(tmp_path: Path):
    """One node that hosts the bus; others join it."""
    async with Cluster(tmp_path) as made:
        await made.node().start()
        yield made
        made.print_logs()


def call(url: str, body: bytes | None = None) -> tuple[int, Any]:
    """Send a request as curl does; returns (status, document)."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, body), timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


async def runs_on(mesh: Mesh, node: str) -> None:
    """Check that a task that requires this node runs on it."""
    end = await (await mesh.start("echo", {"value": node}, requires={"node": node})).end(20)
    assert (end.state, end.node) == ("done", node)


async def refused(folder: Path, *arguments: str) -> str:
    """Start a node that can't start; returns its error. Checks exit code 2 and that there is no traceback."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "node", "--data", str(folder), "--interface", "lo", "--api", f"127.0.0.1:{free_port()}",
        *arguments, cwd=ROOT, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(40):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 2 and b"Traceback" not in err and out == b"", (out, err)
    return err.decode()


async def left_in_order(mesh: Mesh, node: str) -> bool:
    """Whether the node has reported that it leaves. (Its record says so too, until the leader removes it.)"""
    reported = {event.type for event in await journal(mesh.bus) if event.node == node}
    return "leave" in reported and events.NODE_GONE not in reported


async def test_a_started_node_is_listed_by_its_own_api(cluster: Cluster) -> None:
    """From the first answer on, for the node that created the mesh and for one that joined."""
    for node in (cluster.nodes[0], await cluster.node().start()):
        status, document = await asyncio.to_thread(call, f"{node.api}{V}/network/status")
        assert status == 200
        assert (node.id, "up") in {
            (listed_node["id"], listed_node["state"]) for listed_node in document["registry"]["nodes"]
        }


@pytest.mark.parametrize("scheme", ["http", "nats"])
async def test_by_the_address_of_a_node_or_of_the_bus(cluster: Cluster, scheme: str) -> None:
    """With one address that does not answer and one that does; the node runs tasks and leaves in order."""
    address = cluster.nodes[0].api if scheme == "http" else cluster.url
    joiner = await cluster.node("--join", f"{scheme}://127.0.0.1:{free_port()}", "--join", address).start()
    assert f"joined through {cluster.url}" in joiner.banner
    mesh = await cluster.client()
    record = (await records(mesh.bus))[joiner.id]
    assert (record.state, record.registered_by, record.hosts_bus) == ("up", "", False)
    assert record.name == platform.node().split(".")[0]
    await runs_on(mesh, joiner.id)
    assert await joiner.terminate() == 0, joiner.log()
    assert await left_in_order(mesh, joiner.id)


async def test_a_given_address_is_the_only_way_to_join(cluster: Cluster, tmp_path: Path) -> None:
    """With another mesh at the address, no server or a foreign one, the node names the problem and ignores mDNS."""
    arguments = ("--mesh", cluster.mesh_name, "--join")
    async with Cluster(tmp_path / "other") as other:
        other.folder.mkdir()
        node = await other.node().start()
        for address in (node.api, other.url):
            message = await refused(tmp_path / "joiner", *arguments, address)
            assert f"is called {other.mesh_name}, not {cluster.mesh_name}; add --mesh {other.mesh_name}" in message
    for scheme in ("http", "nats"):
        address = f"{scheme}://127.0.0.1:{free_port()}"
        message = await refused(tmp_path / "joiner", *arguments, address)
        assert f"answers at {address}" in message and "Check the address" in message
    # The port of an API given as a bus, and the port of a bus given as an API.
    port = cluster.nodes[0].api.rpartition(":")[2]
    assert "can't join" in await refused(tmp_path / "joiner", *arguments, f"nats://127.0.0.1:{port}")
    assert "can't join" in await refused(tmp_path / "joiner", *arguments, f"http://127.0.0.1:{cluster.bus_port}")
    assert (await asyncio.to_thread(call, f"{cluster.nodes[0].api}{V}/network/status"))[1]["leader"]


async def test_registering_by_plain_http(cluster: Cluster) -> None:
    """The answer has an id and valid bus URLs; the machine is shown as registered; a node that is up is unchanged."""
    node = cluster.nodes[0]
    body = {"name": "pi", "capabilities": {"cores": 4, "memory_bytes": 1 << 30}, "labels": {"room": "attic"}}
    status, answer = await asyncio.to_thread(call, f"{node.api}{V}/nodes/register", json.dumps(body).encode())
    assert status == 200 and answer["bus"]["urls"] == [cluster.url]
    client = await nats.connect(answer["bus"]["urls"])
    await client.close()
    shown: dict[str, Any] = {}

    async def listed() -> bool:
        document = (await asyncio.to_thread(call, f"{node.api}{V}/network/status"))[1]
        shown.update({listed_node["id"]: listed_node for listed_node in document["registry"]["nodes"]})
        return answer["id"] in shown

    await eventually(listed, 10, "the machine that registered is not shown")
    pi = shown[answer["id"]]
    assert (pi["name"], pi["state"], pi["labels"]) == ("pi", "registered", {"room": "attic"})
    assert pi["capabilities"]["cores"] == 4

    again = json.dumps({"name": "impostor", "id": node.id}).encode()
    status, answer = await asyncio.to_thread(call, f"{node.api}{V}/nodes/register", again)
    assert (status, answer["id"]) == (200, node.id)
    mesh = await cluster.client()
    record = (await records(mesh.bus))[node.id]
    assert record.name != "impostor" and record.state == "up"
    wrong = json.dumps({"name": "pi", "capabilities": {"cores": "many"}}).encode()
    status, answer = await asyncio.to_thread(call, f"{node.api}{V}/nodes/register", wrong)
    assert status == 400 and "cores" in answer["error"]["faults"][0]["problem"]


def workers() -> set[int]:
    """The descendants of this process."""
    return {child.pid for child in psutil.Process().children(recursive=True)}


async def test_embedded_in_a_program(cluster: Cluster) -> None:
    """It joins, serves its API, runs tasks, finishes its running one when it is stopped, and leaves nothing behind."""
    mesh, before, port = await cluster.client(), workers(), free_port()
    worker = WorkerNode(cluster.nodes[0].api, port=port, slots=1, mesh_name=cluster.mesh_name, interface="lo")
    with pytest.raises(RuntimeError, match="start the node first"):
        _ = worker.id
    await worker.start()
    folder = worker.node.context.data.path
    try:
        assert worker.api == f"http://127.0.0.1:{port}"
        assert (await asyncio.to_thread(call, f"{worker.api}{V}/readyz"))[0] == 200
        await runs_on(mesh, worker.id)
        me, last = worker.id, await mesh.start("echo", {"sleep_s": 2.5}, requires={"node": worker.id})
        async for view in mesh.watch(last.id):
            if view.state == "running":
                break
    finally:
        await worker.stop()
    end = await last.end(5)
    assert (end.state, end.node, end.attempt) == ("done", me, 1)
    assert await left_in_order(mesh, me)
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    assert workers() == before and not folder.exists()


async def test_embedded_with_a_data_folder_it_keeps_its_id(cluster: Cluster, tmp_path: Path) -> None:
    options = {"mesh_name": cluster.mesh_name, "interface": "lo", "data": tmp_path / "data"}
    seen = []
    for _ in range(2):
        async with WorkerNode(cluster.url, **options) as worker:
            seen.append(worker.id)
    assert seen[0] == seen[1] and (tmp_path / "data").is_dir()


async def test_an_embedded_node_that_can_not_join_leaves_nothing(cluster: Cluster) -> None:
    """It raises a sentence every time, and leaves no process and no folder."""
    before, address = workers(), f"http://127.0.0.1:{free_port()}"
    worker = WorkerNode(address, mesh_name=cluster.mesh_name, interface="lo")
    for _ in range(2):
        with pytest.raises(CannotStart, match="can't join: no node answers at"):
            await worker.start()
        assert workers() == before and not worker.config.data.exists()
    await worker.stop()
