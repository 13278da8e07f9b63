"""Computing kinds through a whole node: real input, code refused at each interface, and a cancel half-way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mesh import subjects
from mesh.client import Mesh
from mesh.errors import BadInput
from mesh.messages import Raw, Task, encode
from mesh.tasks import status
from tests.nodes import Cluster, eventually


@pytest.fixture
async def cluster(tmp_path: Path):
    """A cluster that ends with the test and prints its logs."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


async def test_tpch_through_a_node_gives_its_own_answers(cluster: Cluster) -> None:
    await cluster.node().start()
    mesh = await cluster.client()
    result = await mesh.submit("database_ops", {"scale_factor": 0.01}, wait_s=60)
    assert result["answers_checked"] == 22 and result["power"] > 0 and result["throughput"] > 0
    await _science_is_checked(mesh)
    await _code_is_refused_at_every_interface(mesh)


async def _science_is_checked(mesh: Mesh) -> None:
    for operation in ("linpack", "sgemm", "fft", "sparse_solve"):
        result = await mesh.submit("scientific_computing", {"operation": operation, "n": 100}, wait_s=60)
        assert result["passed"] and result["gflops"] > 0 and 0 <= result["residual"] < 16, result
    result = await mesh.submit("scientific_computing", {"operation": "monte_carlo", "n": 100_000}, wait_s=60)
    assert result["passed"] and abs(result["estimate"] - result["exact"]) < 6 * result["standard_error"], result


async def _code_is_refused_at_every_interface(mesh: Mesh) -> None:
    """By the SDK, by a plain publish, and by the worker for a task that was published directly into a lane."""
    payload = {"sql": "SELECT * FROM read_text('/etc/passwd')"}
    with pytest.raises(BadInput, match="has no key"):
        await mesh.submit("database_ops", payload)
    answer = await mesh.bus.request(subjects.ingress("database_ops"), json.dumps(payload).encode())
    published = subjects.task_id(await status.epoch(mesh.bus), json.loads(answer.data)["seq"])
    forged = Task(id=mesh.submitter.next_id(), kind="database_ops", payload=Raw(encode(payload)))
    lane = subjects.lane_subject(forged.kind, forged.pool, forged.urgency, forged.id)
    await mesh.bus.store(lane, encode(forged), msg_id=forged.id)
    for task in (published, forged.id):
        end = await mesh.wait(task, 30)
        assert end.state == "failed" and end.error is not None and end.error.code == "bad_input", end
        assert [field for field, _ in end.error.faults] == ["payload.sql"]


LONG: list[tuple[str, dict[str, Any]]] = [
    ("database_ops", {"scale_factor": 1}),
    ("crypto_mining", {"nonce_count": 1 << 32, "target_bits": 200}),
    ("scientific_computing", {"operation": "linpack", "n": 6000, "repeat": 50}),
]


async def test_long_work_tells_its_progress_and_can_be_cancelled(cluster: Cluster) -> None:
    """Each kind runs with progress and is ended by a cancel; the node goes on working."""
    await cluster.node().start()
    mesh = await cluster.client()
    for kind, payload in LONG:
        handle = await mesh.start(kind, payload)

        async def progressed(task: str = handle.id) -> bool:
            view = await mesh.status(task)
            return view.state == "running" and view.progress > 0

        await eventually(progressed, 60, f"{kind} reports its progress")
        assert (await handle.cancel()).state == "cancelled"
        assert await mesh.submit("echo", {"value": kind}, wait_s=30) == {"value": kind}
