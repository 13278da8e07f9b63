"""web_server_load through a whole node: by REST, to its own and to a listed server; afterwards no process is left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from tests.nodes import Cluster, NodeProcess, eventually
from tests.web_servers import OK, answering


@pytest.fixture
async def cluster(tmp_path: Path):
    """A cluster that ends with the test and prints its logs."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


async def submit(node: NodeProcess, payload: dict[str, Any]) -> dict[str, Any]:
    """The status by REST of a task that has ended, with its result."""
    async with aiohttp.ClientSession(node.api) as session:
        body = {"workload_type": "web_server_load", "payload": payload}
        async with session.post("/api/v1.2/workload/submit", json=body, params={"wait": "30"}) as answer:
            view = await answer.json()
        if view.get("state") == "done":
            async with session.get(view["links"]["result"]) as answer:
                view["result"] = await answer.json()
        return view


def helpers(node: NodeProcess) -> list[psutil.Process]:
    """The servers and generators under a node."""
    found = []
    for process in node.processes(with_bus=False):
        try:
            if any("node.workloads.web." in argument for argument in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


async def all_gone(processes: list[psutil.Process], node: NodeProcess) -> None:
    async def gone() -> bool:
        return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)

    await eventually(gone, 10, lambda: f"still there: {helpers(node)}")


async def test_by_rest_to_its_own_server_and_to_those_the_operator_listed(cluster: Cluster) -> None:
    with answering(lambda number: OK) as listed, answering(lambda number: OK) as other:
        node = await cluster.node("--web-target", listed.target).start()
        view = await submit(node, {"seconds": 1})
        result = view["result"]
        assert result["requests"] > 100 and result["error_count"] == 0, view
        assert result["requests_per_s"] * result["latency_ms"]["mean"] / 1000 == pytest.approx(16, rel=0.15)
        payload = {"mode": "open", "rate_per_s": 100, "seconds": 0.5, "warm_up_s": 0}
        view = await submit(node, {**payload, "target": listed.target})
        assert view["result"]["requests"] == 50 and view["result"]["target"] == listed.target, view
        refused = await submit(node, {**payload, "target": other.target})
        assert refused["state"] == "failed" and "--web-target" in refused["error"]["message"], refused
        assert listed.requests == 50 and other.connections == 0


async def test_ended_by_cancel_or_by_a_killed_worker_it_leaves_no_process(cluster: Cluster) -> None:
    node = await cluster.node().start()
    mesh = await cluster.client()

    async def at_work() -> list[psutil.Process]:
        found = helpers(node)
        return found if len(found) == 2 else []

    for end in ("cancel", "kill"):
        handle = await mesh.start("web_server_load", {"seconds": 60}, max_attempts=1)

        async def progressed(task: str = handle.id) -> bool:
            view = await mesh.status(task)
            return view.state == "running" and view.progress > 0 and bool(await at_work())

        await eventually(progressed, 30, "it runs and reports its progress")
        processes = helpers(node)
        if end == "cancel":
            assert (await handle.cancel()).state == "cancelled"
        else:
            processes[0].parent().kill()
            assert (await asyncio.wait_for(mesh.wait(handle.id, 20), 25)).state == "failed"
        await all_gone(processes, node)
        assert not helpers(node)
    assert await mesh.submit("echo", {"value": 1}, wait_s=30) == {"value": 1}
