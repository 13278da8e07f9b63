"""Checkpoints on a real bus: complete or absent, never those of a superseded run, removed with their task."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mesh import messages, subjects
from mesh.errors import StorageFull
from mesh.messages import Checkpoint, Task
from mesh.tasks import checkpoints, records
from mesh.tasks.checkpoints import Hold, Superseded
from node.executor.jobs import Job
from node.work.checkpoints import refusal
from tests.integration.node_parts import Node, done, make_node, nak, put_state

TASK = "c1-7"


async def blobs(bus) -> int:
    """The number of objects in the store."""
    answer = await bus.api(f"STREAM.INFO.OBJ_{subjects.BLOBS}", {"subjects_filter": f"$O.{subjects.BLOBS}.M.>"})
    return len(answer["state"].get("subjects") or {})


async def chunks(bus) -> int:
    return (await bus.api(f"STREAM.INFO.OBJ_{subjects.BLOBS}"))["state"]["messages"] - await blobs(bus)


async def record(bus, task: str = TASK) -> Checkpoint | None:
    entry = await bus.kv(subjects.KV_CHECKPOINTS).get(task)
    return msgspec.msgpack.decode(entry.value, type=Checkpoint) if entry else None


@pytest.fixture
def file(tmp_path: Path):
    """`file(data)`: a checkpoint as a worker writes it, a new file each time."""
    numbers = iter(range(100))

    def make(data: bytes = b"state") -> Path:
        path = tmp_path / f"checkpoint-{next(numbers)}"
        path.write_bytes(data)
        return path

    return make


# --- the fence --------------------------------------------------------------------------------------


async def test_the_newest_checkpoint_replaces_the_previous_one(bus_server, file) -> None:
    bus = await bus_server.connect("a")
    hold = checkpoints.new_hold("n1")
    for number in range(3):
        hold = await checkpoints.store(bus, TASK, hold, file(b"%d" % number * 200_000), f"step {number}")
    found = await record(bus)
    assert found is not None and (found.blob, found.size, found.note) == (hold.blob, 200_000, "step 2")
    assert b"".join([chunk async for chunk in await bus.objects.open(hold.blob)]) == b"2" * 200_000
    assert (await blobs(bus), await chunks(bus)) == (1, 2)


@pytest.mark.parametrize("stored_before", [0, 1, 3])
async def test_a_superseded_run_changes_nothing(bus_server, file, stored_before) -> None:
    """At any time, and with any number of stored checkpoints; the successor resumes from the newest one."""
    bus = await bus_server.connect("a")
    stale = checkpoints.new_hold("n1")
    for _ in range(stored_before):
        stale = await checkpoints.store(bus, TASK, stale, file(), "old run")
    mine = await checkpoints.claim(bus, TASK, "n2")
    assert mine.blob == stale.blob
    for _ in range(2):
        with pytest.raises(Superseded, match="another run"):
            await checkpoints.store(bus, TASK, stale, file(b"stale" * 9), "late")
        found = await record(bus)
        assert found is not None and found.blob == mine.blob and found.holder == mine.holder
        mine = await checkpoints.store(bus, TASK, mine, file(b"new"), "new run")
    assert await blobs(bus) == 1
    assert b"".join([chunk async for chunk in await bus.objects.open(mine.blob)]) == b"new"


async def test_a_checkpoint_stored_between_read_and_claim_is_resumed_from(bus_server, file, monkeypatch) -> None:
    bus = await bus_server.connect("a")
    first = await checkpoints.store(bus, TASK, checkpoints.new_hold("n1"), file(), "early")
    real, late = type(bus.kv("x")).update, []

    async def update(bucket, key, value, last, ttl_s=0):
        if not late:
            late.append(None)
            late[0] = await checkpoints.store(bus, TASK, first, file(b"late"), "late")
        return await real(bucket, key, value, last, ttl_s)

    monkeypatch.setattr("mesh.bus.kv.Kv.update", update)
    mine = await checkpoints.claim(bus, TASK, "n2")
    assert mine.blob == late[0].blob != first.blob and mine.revision > late[0].revision
    with pytest.raises(Superseded):
        await checkpoints.store(bus, TASK, late[0], file(), "too late")


async def test_concurrent_runs_leave_one_holder_and_its_checkpoint(bus_server, file) -> None:
    bus = await bus_server.connect("a")

    async def race(number: int) -> Hold | None:
        try:
            hold = await checkpoints.claim(bus, TASK, f"n{number}")
            for step in range(3):
                hold = await checkpoints.store(bus, TASK, hold, file(b"%d" % number), f"step {step}")
            return hold
        except Superseded:
            return None

    holds = [hold for hold in await asyncio.gather(*(race(number) for number in range(5))) if hold is not None]
    found = await record(bus)
    assert found is not None
    last = max(holds, key=lambda hold: hold.revision)
    assert (found.holder, found.blob) == (last.holder, last.blob)
    assert b"".join([chunk async for chunk in await bus.objects.open(found.blob)]).decode() in last.holder


async def test_a_lost_answer_is_not_taken_for_another_run(bus_server, file) -> None:
    """The record was written and its writer got no answer: it reads the record and goes on."""
    bus = await bus_server.connect("a")
    before = checkpoints.new_hold("n1")
    unheard = await checkpoints.store(bus, TASK, before, file(), "first")
    after = await checkpoints.store(bus, TASK, before, file(b"second"), "second")
    assert after.holder == unheard.holder and after.revision > unheard.revision
    found = await record(bus)
    assert found is not None and found.note == "second"


async def test_a_full_store_keeps_the_previous_checkpoint(bus_server, file) -> None:
    bus = await bus_server.connect("a")
    hold = await checkpoints.store(bus, TASK, checkpoints.new_hold("n1"), file(b"kept"), "")
    stream = f"OBJ_{subjects.BLOBS}"
    config = (await bus.api(f"STREAM.INFO.{stream}"))["config"] | {"max_bytes": 1 << 20}
    await bus.api(f"STREAM.UPDATE.{stream}", config)
    with pytest.raises(StorageFull):
        await checkpoints.store(bus, TASK, hold, file(os.urandom(2 << 20)), "")
    found = await record(bus)
    assert found is not None and found.blob == hold.blob
    assert b"".join([chunk async for chunk in await bus.objects.open(hold.blob)]) == b"kept"


async def test_the_leader_removes_checkpoints_of_ended_tasks(bus_server, file) -> None:
    bus = await bus_server.connect("a")
    for task in ("c1-1", "c1-2"):
        await checkpoints.store(bus, task, checkpoints.new_hold("n1"), file(), "")
    assert await checkpoints.sweep(bus) == 0 and await blobs(bus) == 2
    await records.write_end(bus, records.failed(Task(id="c1-1", kind="ml_training"), 1.0, "cancelled", "by hand"))
    assert await checkpoints.sweep(bus) == 1 and await blobs(bus) == 1
    assert await record(bus, "c1-1") is None and await record(bus, "c1-2") is not None


# --- on a node --------------------------------------------------------------------------------------


async def running(node: Node, seq: int = 7, **state) -> Job:
    """Deliver a training to this node, as a redelivery."""
    await put_state(node.bus, seq, state="running", node="dead", incarnation="1", **state)
    node.get(seq, 2, kind="ml_training")
    await node.ran()
    (job,) = [job for job in node.workers.jobs if job.id == f"c1-{seq}"]
    node.admission.on_started(job)
    return job


async def settled(node: Node) -> None:
    await asyncio.gather(
        *(checkpoint.storing for checkpoint in node.checkpoints._of_task.values() if checkpoint.storing)
    )


async def test_a_redelivered_task_resumes_from_its_checkpoint(bus_server, tmp_path, file) -> None:
    node = await make_node(bus_server, tmp_path / "spool")
    await checkpoints.store(node.bus, TASK, checkpoints.new_hold("dead"), file(b"half-way"), "step 50")
    job = await running(node)
    assert job.resume is not None and job.resume.read_bytes() == b"half-way"
    reported = []
    node.checkpoints.report = lambda job, kept: reported.append((job.id, kept))
    later = file(b"further")
    node.checkpoints.take(job, later, "step 80")
    await settled(node)
    found = await record(node.bus)
    assert found is not None and found.note == "step 80" and reported == [(TASK, True)] and not later.exists()
    done(node, 7)
    await node.spy.acks(1)
    await asyncio.gather(*node.completion._background)
    assert await record(node.bus) is None and await blobs(node.bus) == 0


async def test_a_first_run_reads_no_checkpoint_and_stores_its_own(bus_server, tmp_path, file) -> None:
    node = await make_node(bus_server, tmp_path / "spool")
    node.get(7, kind="ml_training")
    (job,) = node.workers.jobs
    assert job.resume is None and await record(node.bus) is None
    for data in (b"1", b"2", b"3", b"4"):
        node.checkpoints.take(job, file(data), data.decode())
    await settled(node)
    found = await record(node.bus)
    assert found is not None and found.note == "4" and await blobs(node.bus) == 1
    assert not list(tmp_path.glob("checkpoint-*"))
    # The next attempt needs the checkpoint that was handed over.
    node.checkpoints.take(job, file(b"5"), "5")
    done(node, 7, messages.TaskError("crashed", "it died", retryable=True))
    await asyncio.gather(*node.completion._background)
    assert (await node.spy.acks())[-1] == ("acks.7.1", nak(1.0))
    found = await record(node.bus)
    assert found is not None and found.note == "5"


async def test_a_node_does_not_store_a_checkpoint_that_it_must_not(bus_server, tmp_path, file, caplog) -> None:
    node = await make_node(bus_server, tmp_path / "spool")
    caplog.set_level("INFO")
    node.bus.config = replace(node.bus.config, checkpoint_max_bytes=1000)
    job, reported = await running(node), []
    node.checkpoints.report = lambda job, kept: reported.append(kept)
    before = await record(node.bus)
    node.checkpoints.take(job, file(b"x" * 1001), "too large")
    node.held(7).trusted = False
    node.checkpoints.take(job, file(), "after a cut")
    node.held(7).trusted = True
    successor = await checkpoints.claim(node.bus, TASK, "n2")
    node.checkpoints.take(job, file(), "superseded")
    await settled(node)
    node.checkpoints.take(job, file(), "superseded, and known to be")
    assert reported == [False] * 4 and not list(tmp_path.glob("checkpoint-*"))
    found = await record(node.bus)
    assert before is not None and found is not None and found.holder == successor.holder and not found.blob
    for message in ("exceed checkpoint_max_bytes", "disconnected or stood still", "has taken over", "another run has"):
        assert message in caplog.text
    # The end of this run does not change the record of the other run.
    done(node, 7)
    await asyncio.gather(*node.completion._background)
    assert await record(node.bus) == found


async def test_a_damaged_checkpoint_means_starting_over(bus_server, tmp_path, file, caplog) -> None:
    node = await make_node(bus_server, tmp_path / "spool")
    await checkpoints.store(node.bus, TASK, checkpoints.new_hold("dead"), file(os.urandom(300_000)), "")
    await node.bus.api(f"STREAM.MSG.DELETE.OBJ_{subjects.BLOBS}", {"seq": 2})
    job = await running(node)
    assert job.resume is None and "starts over" in caplog.text
    node.checkpoints.take(job, file(b"again"), "step 1")
    await settled(node)
    found = await record(node.bus)
    assert found is not None and found.note == "step 1"


def test_rights_and_refusals() -> None:
    mine = Hold("me.1", 5, "b-old")
    assert checkpoints.renewed(mine, None, 0) is None
    assert checkpoints.renewed(mine, Checkpoint("other.2", "b-x"), 9) is None
    assert checkpoints.renewed(mine, Checkpoint("me.1", "b-new"), 9) == Hold("me.1", 9, "b-new")
    assert checkpoints.renewed(mine, Checkpoint("me.1", "b-old"), 4) is None
    fine = {"size": 5, "limit": 5, "declared": True, "held": True, "trusted": True, "superseded": False}
    assert refusal(**fine) == ""
    for change in ({"size": 6}, {"declared": False}, {"held": False}, {"trusted": False}, {"superseded": True}):
        assert refusal(**fine | change), change
    assert checkpoints.new_hold("me") != checkpoints.new_hold("me")
    assert checkpoints.ended(["a", "b"], {"b": 1, "c": 2}) == ["b"]
    assert msgspec.msgpack.decode(messages.encode(Checkpoint("me.1"))) == {"holder": "me.1"}
