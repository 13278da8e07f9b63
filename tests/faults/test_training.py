"""kill -9 of the node that trains: the other one goes on from the last checkpoint, and learns what it would have."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mesh import records, subjects
from mesh.kinds.table import validate
from node.workload import Context, load
from tests import invariants
from tests.faults.conftest import Field
from tests.faults.mixed import done

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

#: One thread and fp32 give the same bits everywhere: the curve must be the same to the last one.
PAYLOAD = {"steps": 1500, "precision": "fp32", "device": "cpu", "checkpoint_every_s": 0.3, "seed": 3}
TRAIN = {"labels": {"mix": "1"}}


async def test_a_killed_training_goes_on_elsewhere_from_its_checkpoint(field: Field, tmp_path: Path) -> None:
    """On two nodes: the host, busy until the other one trains, and the victim."""
    mesh, witness, host = field.mesh, field.witness, field.cluster.nodes[0]
    victim = await field.cluster.node("--label", "mix=1", slots=2).start()
    busy = await mesh.start("echo", {"value": "busy", "sleep_s": 60}, requires={"node": host.id})
    await witness.until(lambda: witness.runs(busy.id), 15, "the host is busy")
    task = await mesh.start("ml_training", PAYLOAD, requires=TRAIN)
    stored = asyncio.Event()
    watch = await mesh.bus.kv(subjects.KV_CHECKPOINTS).watch(lambda key: stored.set())
    await witness.until(lambda: witness.runs(task.id), 30, "it trains")
    (first,) = witness.runs(task.id)
    assert first.node == victim.id
    for _ in range(2):  # the second one replaces the first
        stored.clear()
        await asyncio.wait_for(stored.wait(), 30)
    assert await records.read_end(mesh.bus, task.id) is None, "this machine is too fast: it is over"
    await victim.kill9()
    await busy.cancel()
    end = await task.end(60)
    assert (end.state, end.node, end.attempt) == ("done", host.id, 1), end.error
    result = await mesh.value(end)

    assert 0 < result["resumed_from_step"] < PAYLOAD["steps"] == result["steps"], result
    assert result["steps_this_run"] == result["steps"] - result["resumed_from_step"] and result["runs"] == 2
    assert result["note"] == f"went on from step {result['resumed_from_step']}"
    whole = load("ml_training")(validate("ml_training", PAYLOAD), Context(1, tmp_path))
    assert whole["resumed_from_step"] == 0 and result["losses"] == whole["losses"]
    await watch.close()
    accepted = {task.id: lambda end, _: done(end), busy.id: lambda end, _: None}
    await invariants.check(mesh, accepted, witness)
    assert not await mesh.bus.kv(subjects.KV_CHECKPOINTS).keys(), "the checkpoint outlived its task"
    print(f"went on from step {result['resumed_from_step']} of {result['steps']}")
