"""A large search over three nodes gives the result of one node, also when a node is killed during it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from mesh.client import Mesh
from mesh.kinds.crypto_mining import GENESIS_NONCE
from mesh.kinds.table import validate
from mesh.splitting.mining import mine
from mesh.splitting.nonces import SearchResult
from node.workloads.mining import sha256_vector
from tests.integration.killing import kill_one_at_work
from tests.integration.queztl_process import queztl
from tests.nodes import Cluster, NodeProcess

GENESIS_HASH = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
COUNT = 100_000_000


@pytest.fixture
async def cluster(tmp_path: Path):
    """A cluster that ends with the test and prints its logs when it fails."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


async def test_a_search_over_three_nodes_with_one_killed_gives_the_result_of_one(cluster: Cluster) -> None:
    """Every nonce is tried, and the best hash is the one that this process finds alone."""
    host, *others = await cluster.start(1, 1, 1)
    mesh = await cluster.client()
    seen: set[str] = set()
    changed = asyncio.Event()

    def record(_: SearchResult, tasks: list[str]) -> None:
        seen.update(tasks)
        changed.set()

    async def tasks() -> set[str]:
        await changed.wait()
        return seen

    killing = asyncio.create_task(kill_one_at_work(mesh, others, tasks))
    payload = {"nonce_start": 1_000_000, "nonce_count": COUNT, "target_bits": 200}
    result = await mine(mesh, payload, on_progress=record)
    dead, lost = await asyncio.wait_for(killing, 1)
    header = validate("crypto_mining", payload).header
    kernel = sha256_vector.kernel()
    assert kernel is not None
    _, _, best, value = await asyncio.to_thread(kernel.scan, header, 1_000_000, COUNT, 0)
    assert (result["found"], result["best_nonce"], result["best_hash_hex"]) == (False, best, value.hex())
    assert result["hashes"] == COUNT and result["parts"] == len(seen) and len(result["nodes"]) >= 2, result
    redone = await mesh.wait(lost, 30)
    assert redone.state == "done" and redone.node != dead.id, redone
    await _the_finder_stops_the_others(mesh)
    await _by_command(host)


async def _the_finder_stops_the_others(mesh: Mesh) -> None:
    seen: set[str] = set()
    payload = {"block": "genesis", "nonce_start": GENESIS_NONCE - 1000, "nonce_count": (1 << 32) - GENESIS_NONCE}
    result = await mine(mesh, payload, on_progress=lambda _, tasks: seen.update(tasks))
    assert (result["found"], result["nonce"], result["hash_hex"]) == (True, GENESIS_NONCE, GENESIS_HASH)
    ends = [await mesh.wait(task, 30) for task in seen]
    states = [end.state for end in ends]
    assert len(states) > 1 and set(states) == {"done", "cancelled"}, states
    assert await mesh.submit("echo", {"value": 1}, wait_s=30) == {"value": 1}


async def _by_command(node: NodeProcess) -> None:
    payload = {"block": "genesis", "nonce_start": GENESIS_NONCE - 1000, "nonce_count": 2000}
    done = await queztl("mine", json.dumps(payload), url=node.api)
    assert done.code == 0, done
    assert json.loads(done.out)["nonce"] == GENESIS_NONCE
    done = await queztl("mine", '{"seconds": 1}', url=node.api)
    assert done.code != 0 and "payload.seconds" in done.err
