"""Limits of a node and of its mesh, reached on a real node: it goes on, refuses what is too much and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mesh.client import Mesh
from mesh.lanes import pool_name
from node.probes.descriptors import ENOUGH
from tests.nodes import Cluster, NodeProcess, eventually, records

V = "/api/v1.2"
BUS_CONNECTIONS = 30
#: Soft and hard limit, as an administrator or a container sets it.
FEW_FILES = ("/bin/sh", "-c", 'ulimit -n 320; exec "$0" "$@"', sys.executable, "-m", "node")
LOW_SOFT_LIMIT = ("/bin/sh", "-c", 'ulimit -Sn 256; exec "$0" "$@"', sys.executable, "-m", "node")


@pytest.fixture
async def cluster(tmp_path: Path):
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


async def api(node: NodeProcess, method: str, path: str, **body: Any) -> tuple[int, Any, Any]:
    """(status, document, headers)"""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"{node.api}{V}{path}", json=body or None) as answer,
    ):
        return answer.status, json.loads(await answer.read()), answer.headers


async def works(mesh: Mesh) -> None:
    assert await mesh.submit("echo", {"value": 7}, wait_s=30) == {"value": 7}


async def test_a_node_with_few_files_outlives_idle_connections_and_having_none_left(cluster: Cluster) -> None:
    """Its heartbeat opened /proc/stat each time: 1,100 connections without a byte ended it within five seconds."""
    node = cluster.node()
    node.command = FEW_FILES
    await node.start()
    mesh = await cluster.client()
    await works(mesh)
    host, port = node.api.removeprefix("http://").split(":")
    with ExitStack() as idle:
        for _ in range(400):
            idle.enter_context(socket.create_connection((host, int(port))))
        status, document, _ = await api(node, "GET", "/network/status")
        assert status == 200 and any("connections to the API" in alarm for alarm in document["alarms"])
        await works(mesh)
    await _no_descriptor_left(node, mesh)


async def _no_descriptor_left(node: NodeProcess, mesh: Mesh) -> None:
    """It can open nothing any more for four heartbeats' silence: it is up all the time, and works again after it."""
    limits = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    in_use = max(map(int, os.listdir(f"/proc/{node.pid}/fd"))) + 1
    arrivals: list[float] = []
    subscription = await mesh.bus.subscribe(f"node.{node.id}.heartbeat", lambda _: arrivals.append(0.0))
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (1, limits[1]))
    assert in_use > 1
    await eventually(lambda: asyncio.sleep(0, len(arrivals) >= 8), 20, "its heartbeats stay away")
    assert node.running
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, limits)
    await works(mesh)
    await subscription.close()


async def test_requirements_registrations_and_nodes_beyond_their_limit_are_refused_and_nothing_else(
    cluster: Cluster, tmp_path: Path
) -> None:
    small = [
        argument
        for limit in ("lanes=5", "registered_nodes=5", "nodes=1", f"bus_connections={BUS_CONNECTIONS}")
        for argument in ("--limit", limit)
    ]
    node = cluster.node(*small)
    node.command = LOW_SOFT_LIMIT
    await node.start()
    soft, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    assert soft == min(hard, ENOUGH) > 256, "it raises the limit that a shell gives it"
    mesh = await cluster.client()

    async def submit(**requires: Any) -> tuple[int, Any, Any]:
        return await api(node, "POST", "/workload/submit", workload_type="echo", requires=requires)

    for number in range(50):  # as many different needs of memory as there are jobs share a lane
        status, _, _ = await submit(memory_mb=1_000_000_000 - number)
        assert status == 202
    await _exact_needs_count(node, mesh)
    statuses = [(await submit(labels={f"k{number}": "v"}))[0] for number in range(6)]
    assert statuses[:3] == [202] * 3 and statuses[-1] == 429
    status, answer, headers = await submit(node="nobody")
    assert (status, answer["error"]["code"]) == (429, "too_many") and headers["Retry-After"]
    await works(mesh)
    await _registrations(node)
    await _connections_to_the_bus(node, cluster)
    second = cluster.node(*small)
    with pytest.raises(AssertionError, match="as many nodes as it may have"):
        await second.start()
    await works(mesh)


async def _exact_needs_count(node: NodeProcess, mesh: Mesh) -> None:
    """Two tasks in one lane, of which the node can run one: the other waits, says why, and holds nothing up."""
    has = (await records(mesh.bus))[node.id].capabilities.memory_bytes // 1_048_576
    assert pool_name({"memory_mb": has}) == pool_name({"memory_mb": has + 1})
    too_large = await mesh.start("echo", requires={"memory_mb": has + 1})
    fits = await mesh.start("echo", {"value": 1}, requires={"memory_mb": has})
    assert (await fits.end(30)).state == "done"
    view = await mesh.status(too_large.id)
    assert view.state == "queued" and not view.waiting_helps and f"of {has + 1} MB" in view.waiting_for[0]


async def _connections_to_the_bus(node: NodeProcess, cluster: Cluster) -> None:
    streams = [await asyncio.open_connection("127.0.0.1", cluster.bus_port) for _ in range(40)]
    answers = []
    for reader, writer in streams:
        try:
            writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
            answers.append(await asyncio.wait_for(reader.readuntil(b"\r\n"), 10) + await reader.readline())
        except ConnectionError:
            answers.append(b"closed")

    async def has_alarm() -> bool:
        _, document, _ = await api(node, "GET", "/network/status")
        return any(f"of {BUS_CONNECTIONS} connections to a bus server" in alarm for alarm in document["alarms"])

    await eventually(has_alarm, 20, "no alarm")
    for _, writer in streams:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in streams), return_exceptions=True)
    assert 10 < sum(b"PONG" in answer for answer in answers) < BUS_CONNECTIONS


async def _registrations(node: NodeProcess) -> None:
    statuses = [(await api(node, "POST", "/nodes/register", name=f"pi{number}"))[0] for number in range(5)]
    assert statuses == [200] * 5

    async def all_are_shown() -> bool:
        _, document, _ = await api(node, "GET", "/network/status")
        return len(document["registry"]["nodes"]) == 6 and document["registry"]["total_nodes"] == 1

    await eventually(all_are_shown, 10, "they are shown, and not counted as nodes")
    status, answer, _ = await api(node, "POST", "/nodes/register", name="one too many")
    assert (status, answer["error"]["code"]) == (429, "too_many")
