"""The suite on nodes of a mesh: by REST and by `queztl bench`, stored in the mesh with its history, cancelled."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from mesh import benchmarks
from tests.integration.queztl_process import queztl
from tests.nodes import ROOT, Cluster, NodeProcess, eventually

SUITE = "/api/v1.2/benchmarks/realworld"
pytestmark = pytest.mark.timeout(240)


async def ask(node: NodeProcess, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    """(status, document)"""

    def call() -> tuple[int, Any]:
        data = json.dumps(body).encode() if body is not None else None
        try:
            with urllib.request.urlopen(urllib.request.Request(f"{node.api}{path}", data, method=method)) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await asyncio.to_thread(call)


@pytest.fixture
async def cluster(tmp_path: Path):
    """A cluster that ends with the test and prints its logs when it fails."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


async def test_nodes_are_measured_and_their_outcomes_kept(cluster: Cluster) -> None:
    first_node, second_node = await cluster.start(1, 1)
    mesh = await cluster.client()
    status, begun = await ask(
        first_node, "POST", f"{SUITE}/run", {"names": ["crypto_mining"], "nodes": "all", "quick": True}
    )
    assert status == 202 and set(begun["nodes"]) == {first_node.id, second_node.id} and begun["state"] == "starting"
    status, refused = await ask(first_node, "POST", f"{SUITE}/run", {"names": ["crypto_mining"]})
    assert status == 409 and begun["id"] in refused["error"]["message"]

    async def ended() -> bool:
        # Every node knows the run.
        run = (await ask(second_node, "GET", begun["links"]["status"]))[1]
        assert run["state"] in ("starting", "running", "done"), run["reason"]
        return run["state"] == "done"

    await eventually(ended, 120, "the run ends")
    listed = {first_node["name"]: first_node for first_node in (await ask(second_node, "GET", SUITE))[1]["benchmarks"]}
    assert listed["database_ops"]["last"] == "never run"
    found = {outcome["node"]: outcome for outcome in listed["crypto_mining"]["nodes"]}
    assert set(found) == {first_node.id, second_node.id}
    assert all(outcome["state"] == "ok" and outcome["figures"]["sha256d"]["median"] > 0 for outcome in found.values())
    assert len(await benchmarks.history(mesh.bus, "crypto_mining", first_node.id)) == 1

    done = await queztl("bench", "run", "crypto_mining", "--quick", url=first_node.api)
    assert done.code == 0 and "MH/s" in done.out and first_node.id in done.out and second_node.id not in done.out, done
    history = await benchmarks.history(mesh.bus, "crypto_mining", first_node.id)
    assert len(history) == 2 and history[0]["at"] < history[1]["at"]
    listing = await queztl("bench", "list", url=second_node.api)
    assert "never run" in listing.out and second_node.id in listing.out


async def test_how_a_workload_scales_is_measured_on_the_nodes_of_the_mesh(cluster: Cluster) -> None:
    first_node, _ = await cluster.start(1, 1)
    arguments = (
        sys.executable,
        "-P",
        "-m",
        "bench",
        "scale",
        "crypto_mining",
        "--quick",
        "--mesh",
        first_node.api,
        "--json",
    )
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    first, second = json.loads(out)["crypto_mining"]
    assert (first["nodes"], second["nodes"], second["tasks"]) == (1, 2, 2 * first["tasks"])
    assert first["efficiency"] == 1.0 and second["efficiency"] > 0.2
    assert abs(second["useful"] + second["slower"] + second["idle"] - 1.0) < 0.01


async def test_a_run_can_be_cancelled_and_wrong_names_are_refused(cluster: Cluster) -> None:
    (node,) = await cluster.start(1)
    status, begun = await ask(node, "POST", f"{SUITE}/run", {"names": ["crypto_mining", "database_ops"]})
    assert status == 202

    async def runs() -> bool:
        return (await ask(node, "GET", begun["links"]["status"]))[1]["state"] == "running"

    await eventually(runs, 60, "the run is in state running")
    status, stopped = await ask(node, "DELETE", begun["links"]["cancel"])
    assert (status, stopped["state"]) == (200, "cancelled") and stopped["ended_at"]
    assert (await ask(node, "DELETE", begun["links"]["cancel"]))[1]["state"] == "cancelled"
    wrong = await queztl("bench", "run", "sudoku", url=node.api)
    assert wrong.code == 2 and "none of llm_inference" in wrong.err
    wrong = await queztl("bench", "run", "--node", "nobody", url=node.api)
    assert wrong.code == 2 and "no node of this mesh" in wrong.err
