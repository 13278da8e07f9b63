"""The node that trains is killed, or frozen: another continues from the last checkpoint, with the same result."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh import messages, subjects
from mesh.client import TaskHandle
from mesh.kinds.table import validate
from mesh.messages import Checkpoint
from mesh.tasks import records
from node.executor.context import Context, load
from tests import invariants
from tests.faults.conftest import Field
from tests.faults.mixed import done
from tests.nodes import NodeProcess, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(500)]

#: One thread and fp32 give the same bits everywhere: the curve must be the same to the last bit.
PAYLOAD = {"precision": "fp32", "device": "cpu", "checkpoint_every_s": 0.3, "seed": 3}
#: Takes at least a quarter of a minute on the fastest machine seen; much more than the waits of the test.
STEPS = 3000


async def _stored(field: Field, count: int, within_s: float = 90.0) -> messages.Checkpoint:
    """The record after `count` more writes of it."""
    bucket, changed = field.mesh.bus.kv(subjects.KV_CHECKPOINTS), asyncio.Event()
    watch = await bucket.watch(lambda key: changed.set())
    for _ in range(count):
        changed.clear()
        await asyncio.wait_for(changed.wait(), within_s)
    await watch.close()
    found = await bucket.entries()
    assert found, "it is over, and its checkpoint gone: the bus was away for so long, or this machine is too fast"
    return msgspec.msgpack.decode(found[0].value, type=Checkpoint)


async def _begin(field: Field, steps: int) -> tuple[NodeProcess, TaskHandle]:
    """Two nodes: the host, busy until the victim trains and its checkpoint is stored, and the victim."""
    mesh, witness, host = field.mesh, field.witness, field.cluster.nodes[0]
    victim = await field.cluster.node("--label", "mix=1", slots=2).start()
    busy = await mesh.start("echo", {"value": "busy", "sleep_s": 200}, requires={"node": host.id})
    await witness.until(lambda: witness.runs(busy.id), 15, "the host is busy")
    task = await mesh.start("ml_training", PAYLOAD | {"steps": steps}, requires={"labels": {"mix": "1"}})
    await witness.until(lambda: witness.runs(task.id), 180, "it trains")
    (first,) = witness.runs(task.id)
    assert first.node == victim.id
    await _stored(field, 2)  # the second checkpoint replaces the first
    assert await records.read_end(mesh.bus, task.id) is None, "this machine is too fast: it is over"
    await busy.cancel()
    return victim, task


async def _check(field: Field, task: TaskHandle, steps: int, folder: Path) -> tuple[str, dict[str, Any]]:
    """It ended with the curve of an uninterrupted run, and left nothing; returns its node and its result."""
    mesh = field.mesh
    end = await task.end(240)
    assert (end.state, end.attempt) == ("done", 1), end.error
    result = await mesh.value(end)
    whole = load("ml_training")(validate("ml_training", PAYLOAD | {"steps": steps}), Context(1, folder))
    assert whole["resumed_from_step"] == 0 and result["losses"] == whole["losses"] and result["steps"] == steps
    accepted = {id_: lambda end, _: None for id_ in field.witness.ends} | {task.id: lambda end, _: done(end)}
    await invariants.check(mesh, accepted, field.witness)

    async def gone() -> bool:
        return not await mesh.bus.kv(subjects.KV_CHECKPOINTS).keys()

    await eventually(gone, 40, "the checkpoint goes with its task")
    return end.node, result


async def test_a_killed_training_goes_on_elsewhere_from_its_checkpoint(field: Field, tmp_path: Path) -> None:
    victim, task = await _begin(field, STEPS)
    await victim.kill9()
    where, result = await _check(field, task, STEPS, tmp_path)
    assert where == field.cluster.nodes[0].id and result["runs"] == 2, (where, result)
    assert 0 < result["resumed_from_step"] == STEPS - result["steps_this_run"], result
    assert result["note"] == f"resumed from step {result['resumed_from_step']}"


async def test_a_node_that_wakes_up_replaces_no_checkpoint_of_its_successor(field: Field, tmp_path: Path) -> None:
    """Both train the same task for a while, and both hand over checkpoints: only the successor's count. Whichever is
    done first has the right result."""
    victim, task = await _begin(field, STEPS)
    victim.freeze()
    host = field.cluster.nodes[0]
    await field.witness.until(lambda: len(field.witness.runs(task.id)) == 2, 60, "the other node has it")
    assert field.witness.runs(task.id)[1].node == host.id
    before = await _stored(field, 1)
    victim.thaw()
    for _ in range(4):
        assert (await _stored(field, 1)).holder == before.holder
    assert before.holder.startswith(host.id)
    await _check(field, task, STEPS, tmp_path)
    log = victim.log(1 << 30)  # whole: a mesh receives the announcements of all others on this machine
    assert "not storing a checkpoint" in log or "has taken over" in log, "it stored none after it woke up"
