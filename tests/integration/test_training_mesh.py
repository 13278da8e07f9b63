"""ml_training through a whole node, as a user of the REST bridge sees it: progress, result, refusals, cancel."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from safetensors.numpy import load_file

from mesh import subjects
from tests.integration.queztl_process import queztl
from tests.nodes import Cluster, NodeProcess, eventually

#: A small transformer that learns for some seconds.
TINY = {"model": "transformer", "layers": 1, "width": 32, "heads": 2, "context": 32, "vocabulary": 256, "batch": 4}

#: The loss is NaN after some 20 steps.
DIVERGING = {"steps": 50, "optimizer": "sgd", "learning_rate": 10, "layers": 12, "width": 512}


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """A cluster that ends with the test and prints its logs."""
    async with Cluster(tmp_path) as made:
        yield made
        made.print_logs()


class Bridge:
    """The REST bridge of a node."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url, self.node = session, f"{url}/api/v1.2/workload", url

    async def submit(self, payload: dict[str, Any], wait_s: int = 0, attempts: int = 1) -> dict[str, Any]:
        body = {"workload_type": "ml_training", "payload": payload, "max_attempts": attempts}
        async with self._session.post(f"{self._url}/submit?wait={wait_s}", json=body) as answer:
            return await answer.json()

    async def get(self, task: str, what: str) -> dict[str, Any]:
        async with self._session.get(f"{self._url}/{task}/{what}") as answer:
            return await answer.json()

    async def cancel(self, task: str) -> None:
        async with self._session.delete(f"{self._url}/{task}") as answer:
            assert answer.status < 300, await answer.text()


async def test_training_over_rest(cluster: Cluster, tmp_path: Path) -> None:
    node = await cluster.node().start()
    mesh = await cluster.client()
    async with aiohttp.ClientSession() as session:
        rest = Bridge(session, node.api)
        await _learns(rest)
        await _gives_the_model_back(rest, tmp_path / "trained")
        await _survives_its_worker(rest, mesh.bus, node)
        await _refuses(rest)
        await _reports_its_progress_and_is_cancelled(rest, mesh.bus, node.log)


async def _learns(rest: Bridge) -> None:
    """An empty payload is enough; and the work learns that its checkpoints are kept."""
    task = await rest.submit({}, wait_s=60)
    assert task["state"] == "done", task
    result = await rest.get(task["id"], "result")
    assert result["model"] == "mlp" and result["loss_fell"] is True and result["steps"] == 300, result
    assert result["loss_last"] < result["loss_first"] / 10 and result["samples_per_s"] > 0
    task = await rest.submit(TINY | {"steps": 400, "checkpoint_every_s": 0.1}, wait_s=60)
    kept = (await rest.get(task["id"], "result"))["checkpoints"]
    assert 0 < kept["kept"] <= kept["taken"] and kept["not_kept"] == 0, kept


async def _gives_the_model_back(rest: Bridge, folder: Path) -> None:
    """The weights and losses are files of the result, which a command downloads; the next training starts from them."""
    payload = TINY | {"steps": 60, "precision": "fp32", "learning_rate": 3e-3}
    task = await rest.submit(payload, wait_s=60)
    first = await rest.get(task["id"], "result")
    ran = await queztl("result", task["id"], "--files", folder, url=rest.node)
    assert ran.code == 0, ran.err
    tensors = load_file(folder / "weights.safetensors")
    assert sum(tensor.size for tensor in tensors.values()) == first["parameters"] and tensors["wte.weight"].any()
    lines = (folder / "metrics.csv").read_text().splitlines()
    assert lines[0] == "step,loss" and len(lines) == 61
    assert float(lines[60].partition(",")[2]) == first["losses"][-1][1]

    start = {"blob": first["files"]["weights.safetensors"]["blob"]}
    task = await rest.submit(payload | {"start_from": start, "steps": 30}, wait_s=60)
    second = await rest.get(task["id"], "result")
    assert (second["steps_before"], second["steps"]) == (60, 30), second
    assert second["loss_first"] < first["loss_last"] * 1.05 < first["loss_first"], "the loss continues"
    task = await rest.submit(payload | {"start_from": start, "layers": 2, "width": 64}, wait_s=60, attempts=3)
    faults = [fault["problem"] for fault in task["error"]["faults"]]
    assert (task["state"], task["attempt"]) == ("failed", 1) and len(faults) > 20, task
    assert "has wte.weight of shape 256 x 32, and the model's is 256 x 64" in faults


async def _survives_its_worker(rest: Bridge, bus: Any, node: NodeProcess) -> None:
    """Its worker dies: that is an attempt, and the next attempt continues from the checkpoint."""
    payload = TINY | {"steps": 800, "checkpoint_every_s": 0.2, "precision": "fp32", "learning_rate": 3e-3}
    task = (await rest.submit(payload, attempts=2))["id"]

    async def kept() -> bool:
        return task in await bus.kv(subjects.KV_CHECKPOINTS).keys()

    await eventually(kept, 40, lambda: f"a checkpoint is kept\n{node.log()}")
    for process in node.processes(with_bus=False):
        if "node.executor.worker_main" in process.cmdline():
            process.kill()

    async def over() -> bool:
        return (await rest.get(task, "status"))["state"] in ("done", "failed")

    await eventually(over, 60, "the next attempt ends")
    view, result = await rest.get(task, "status"), await rest.get(task, "result")
    assert (view["state"], view["attempt"]) == ("done", 2), view
    assert result["resumed_from_step"] > 0 and (result["runs"], result["steps"]) == (2, 800), result
    assert result["loss_fell"] and result["loss_last"] > result["loss_floor"]


async def _refuses(rest: Bridge) -> None:
    refused = await rest.submit({"model": "transformer", "batch": 1_000_000, "classes": 3})
    assert {fault["field"] for fault in refused["error"]["faults"]} == {"payload.batch", "payload.classes"}, refused
    broken = {"data": base64.b64encode(b"PK, but no archive").decode()}
    for payload, message in (
        (broken, "is not a valid .npz"),
        ({"model": "transformer", "batch": 64}, "needs about"),
        ({"learning_rate": 0, "steps": 60}, "did not fall"),
        (DIVERGING, "the loss of step"),
    ):
        task = await rest.submit(payload, wait_s=60, attempts=3)
        assert task["state"] == "failed" and message in task["error"]["message"], task
        assert task["attempt"] == 1, "each of these would fail the same way again"


async def _reports_its_progress_and_is_cancelled(rest: Bridge, bus: Any, log: Any) -> None:
    """It runs and has a checkpoint in the mesh; a cancel ends it and removes the checkpoint."""
    task = (await rest.submit(TINY | {"steps": 100_000, "checkpoint_every_s": 0.3}))["id"]
    kept = bus.kv(subjects.KV_CHECKPOINTS)

    async def trains() -> bool:
        view = await rest.get(task, "status")
        reported = view["state"] == "running" and "loss" in view.get("note", "") and 0 < view["progress"] < 1
        return reported and task in await kept.keys()

    await eventually(trains, 40, lambda: f"it trains and has a checkpoint\n{log()}")
    await rest.cancel(task)

    async def gone() -> bool:
        return not await kept.keys()

    await eventually(gone, 20, "the checkpoint of a cancelled task is removed")
    assert (await rest.get(task, "status"))["state"] == "cancelled"
