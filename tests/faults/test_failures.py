"""Tasks that fail, crash, hang, leak, expire, are cancelled, or are submitted twice."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from mesh.errors import Conflict, NotFound
from mesh.messages import TaskEnd
from mesh.views import SubmitRequest
from tests import invariants
from tests.faults.conftest import Field
from tests.faults.mixed import echoed
from tests.invariants import Expected

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


def ended(state: str, code: str = "", attempt: int = 0) -> Expected:
    """The task ended in that state, with that error."""

    def expected(end: TaskEnd, _: Any) -> None:
        assert end.state == state, end
        assert not code or (end.error is not None and end.error.code == code), end
        assert not attempt or end.attempt == attempt, end

    return expected


async def test_faults_end_the_task_and_not_the_node(field: Field) -> None:
    """Each fault has its own reason; a task without attempts left is a dead letter that can be replayed."""
    mesh, witness = field.mesh, field.witness
    cases: list[tuple[dict[str, Any], dict[str, Any], Expected]] = [
        ({"fail": "no luck"}, {"max_attempts": 2}, ended("failed", "failed", attempt=2)),
        ({"crash": "exit"}, {"max_attempts": 1}, ended("failed", "crashed")),
        ({"crash": "segv"}, {"max_attempts": 1}, ended("failed", "crashed")),
        ({"crash": "kill"}, {"max_attempts": 1}, ended("failed", "crashed")),
        ({"hang": True}, {"max_attempts": 1, "timeout_s": 0.4}, ended("failed", "timeout")),
        ({"leak_mb": 700}, {"max_attempts": 1}, ended("failed", "memory")),
    ]
    accepted: dict[str, Expected] = {}
    for payload, options, expected in cases:
        handle = await mesh.start("echo", payload, **options)
        accepted[handle.id] = expected
    beside = [await mesh.start("echo", {"value": number}) for number in range(30)]
    accepted |= {handle.id: echoed(number) for number, handle in enumerate(beside)}
    await invariants.check(mesh, accepted, witness, within_s=30)
    failed = list(accepted)[: len(cases)]
    letters = {letter.task.id: letter for letter in await mesh.dead_list()}
    assert set(letters) == set(failed)
    assert "no luck" in letters[failed[0]].end.error.message

    again = await mesh.dead_replay(failed[0])
    assert again.id not in accepted
    with pytest.raises(NotFound):
        await mesh.dead_show(failed[0])
    accepted[again.id] = ended("failed", "failed", attempt=2)
    await invariants.check(mesh, accepted, witness, within_s=30)
    assert (await mesh.dead_show(again.id)).end.error.code == "failed"


async def test_a_task_that_crashes_on_two_nodes_is_poison(field: Field) -> None:
    """The second node has the only free slot, so that the second attempt runs there."""
    mesh, witness = field.mesh, field.witness
    first = field.cluster.nodes[0]
    handle = await mesh.start("echo", {"crash": "exit"}, max_attempts=6)
    accepted: dict[str, Expected] = {handle.id: ended("failed", "poison")}
    await witness.until(
        lambda: any(state.id == handle.id and state.crashed_on for _, state in witness.states), 20, "a first crash"
    )
    for number in range(4):
        payload = {"value": number, "sleep_s": 6.0}
        full = await mesh.start("echo", payload, requires={"node": first.id}, urgency="high")
        accepted[full.id] = echoed(number)
    second = await field.cluster.node(slots=1).start()
    end = await handle.end(40)
    assert first.id in end.error.message and second.id in end.error.message
    await invariants.check(mesh, accepted, witness)
    assert (await mesh.dead_show(handle.id)).end.error.code == "poison"


async def test_cancel_expiry_delay_and_idempotency(field: Field) -> None:
    """A task ends once, wherever it is when it is cancelled; an ended task stays unchanged."""
    mesh, witness = field.mesh, field.witness
    accepted: dict[str, Expected] = {}

    async def start(expected: Expected, sleep_s: float = 0.0, value: Any = None, **options: Any) -> str:
        handle = await mesh.start("echo", {"value": value, "sleep_s": sleep_s}, **options)
        accepted[handle.id] = expected
        return handle.id

    running = [await start(ended("cancelled"), 60.0) for _ in range(4)]
    await witness.until(lambda: all(witness.runs(task) for task in running), 20, "all slots are taken")
    queued = await start(ended("cancelled"))
    late = await start(ended("expired", "expired"), expires_s=0.2)
    delayed_cancelled = await start(ended("cancelled"), delay_s=30.0)
    began = time.time()
    delayed = await start(echoed("later"), value="later", delay_s=1.0)
    for task in (queued, delayed_cancelled):
        assert (await mesh.cancel(task)).state == "cancelled"
    await asyncio.sleep(0.25)  # the lifetime of `late`, by intent
    for task in running:
        assert (await mesh.cancel(task)).state == "cancelled"
    free = await start(echoed("free"), value="free")
    assert (await mesh.wait(free, 10)).state == "done"
    assert (await mesh.cancel(free)).state == "done"
    assert (await mesh.wait(late, 10)).state == "expired"
    end = await mesh.wait(delayed, 15)
    assert end.state == "done" and end.started_at >= began + 1.0

    request = SubmitRequest("echo", {"value": "once"}, idempotency_key="order 7")
    first, second = await mesh.accept(request), await mesh.accept(request)
    assert first.id == second.id and not first.duplicate and second.duplicate
    accepted[first.id] = echoed("once")
    with pytest.raises(Conflict):
        await mesh.accept(SubmitRequest("echo", {"value": "other"}, idempotency_key="order 7"))
    with pytest.raises(Conflict):
        await mesh.accept(SubmitRequest("crypto_mining", {"nonce_count": 10}, idempotency_key="order 7"))
    await invariants.check(mesh, accepted, witness)
