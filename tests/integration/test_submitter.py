"""Accepting work: durable when the answer comes, once per idempotency key, at its time when delayed."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace

import pytest

from mesh import subjects
from mesh.bus.errors import ApiError
from mesh.bus.streams import list_lanes
from mesh.errors import BadInput, BusUnavailable, Busy, Conflict
from mesh.messages import CLAIM_CHECK_BYTES, Claim, TaskEnd, decode_any, encode
from mesh.tasks import records
from mesh.tasks.submitter import Submitter
from mesh.views import SubmitRequest


@pytest.fixture
async def submitter(bus_server) -> Submitter:
    return Submitter(await bus_server.connect("a"), "c1")


async def waiting(submitter: Submitter) -> int:
    """Messages in the queue."""
    return (await submitter._bus.api(f"STREAM.INFO.{subjects.WORK}"))["state"]["messages"]


async def test_an_accepted_task_is_in_its_lane(submitter) -> None:
    request = SubmitRequest("echo", {"value": 1}, requires={"cores": 2}, urgency="high")
    accepted = await submitter.accept(request)
    task = await records.read_waiting(submitter._bus, accepted.id)
    assert decode_any(task.payload) == {"value": 1} and task.pool.startswith("p-") and task.urgency == "high"
    assert list(await list_lanes(submitter._bus)) == [("echo", task.pool, "high")]
    pools = await submitter._bus.kv(subjects.KV_POOLS).entries()
    assert [decode_any(entry.value)["requires"] for entry in pools] == [{"cores": 2}]


async def test_a_submission_that_is_sent_twice_is_in_its_lane_once(submitter) -> None:
    """As when the bus' answer to the first copy was lost."""
    prepared = submitter.prepare(SubmitRequest("echo", {"value": 1}))
    await submitter.publish(prepared)
    await submitter.publish(prepared)
    assert await waiting(submitter) == 1


async def test_a_stream_that_a_server_does_not_know_yet_is_waited_for(submitter) -> None:
    """As while a rescue makes one copy of three: the first server answers "stream not found (10059)" for a moment."""
    bus = submitter._bus
    config = (await bus.stream_info(subjects.WORK)).config
    await bus.api(f"STREAM.DELETE.{subjects.WORK}")
    with pytest.raises(ApiError, match="10059"):
        await bus.api(f"STREAM.INFO.{subjects.WORK}", timeout_s=0.1)
    submission = asyncio.create_task(submitter.accept(SubmitRequest("echo", {})))
    done, _ = await asyncio.wait({submission}, timeout=1.0)
    assert not done
    await bus.create_stream(config)
    await submission
    assert await waiting(submitter) == 1


async def test_a_stream_that_stays_unknown_is_a_503(submitter) -> None:
    bus = submitter._bus
    await bus.api(f"STREAM.DELETE.{subjects.WORK}")
    for refused in (submitter.accept(SubmitRequest("echo", {})), bus.read_at(subjects.WORK, 1)):
        with pytest.raises(BusUnavailable) as error:
            await refused
        assert error.value.http_status == 503 and error.value.retry_after_s > 0


async def test_a_quiet_lane_gets_one_hint(submitter) -> None:
    hints = []
    await submitter._bus.subscribe(subjects.ALL_WAKES, hints.append)
    await asyncio.gather(*(submitter.accept(SubmitRequest("echo", {})) for _ in range(20)))
    await submitter._bus.flush()
    assert [message.subject for message in hints] == [subjects.wake("echo", "any", "normal")]


async def test_a_lane_forgotten_while_a_task_is_on_its_way_into_it_is_declared_again(submitter) -> None:
    """As when the bus is away for a moment: the declaration that another task began has failed meanwhile."""
    lane = ("echo", "any", "normal")
    bus = submitter._bus
    task = asyncio.create_task(submitter.publish(submitter.prepare(SubmitRequest("echo", {}))))
    while not bus.unconfirmed:
        await asyncio.sleep(0)
    submitter._declared.clear()
    await task

    await asyncio.gather(*submitter._background)
    assert lane in await list_lanes(bus) and submitter.declared(lane)


async def test_a_refused_submission_stores_nothing(submitter) -> None:
    for request in (
        SubmitRequest("echo", {"wrong": 1}),
        SubmitRequest("no_such_kind"),
        SubmitRequest("echo", {"data": {"blob": "b-tnothere"}}),
    ):
        with pytest.raises(BadInput):
            await submitter.accept(request)
    assert await waiting(submitter) == 0


async def test_a_large_payload_is_stored_as_a_blob(submitter) -> None:
    payload = {"value": "x" * (CLAIM_CHECK_BYTES + 1)}
    accepted = await submitter.accept(SubmitRequest("echo", payload))
    task = await records.read_waiting(submitter._bus, accepted.id)
    assert not len(task.payload) and task.payload_ref.size > CLAIM_CHECK_BYTES
    chunks = await submitter._bus.objects.open(task.payload_ref.blob)
    assert decode_any(b"".join([chunk async for chunk in chunks])) == payload


async def test_the_same_key_and_payload_is_the_same_task(submitter) -> None:
    request = SubmitRequest("echo", {"value": 1}, idempotency_key="order 7")
    answers = await asyncio.gather(*(submitter.accept(request) for _ in range(5)))
    assert len({answer.id for answer in answers}) == 1
    assert sum(not answer.duplicate for answer in answers) == 1
    assert await waiting(submitter) == 1
    with pytest.raises(Conflict, match=answers[0].id):
        await submitter.accept(SubmitRequest("echo", {"value": 2}, idempotency_key="order 7"))
    with pytest.raises(Conflict, match=f"{answers[0].id}, which has another kind, echo"):
        await submitter.accept(SubmitRequest("crypto_mining", {"nonce_count": 10}, idempotency_key="order 7"))
    assert await waiting(submitter) == 1


async def test_a_key_names_its_task_after_it_ended(submitter) -> None:
    request = SubmitRequest("echo", {}, idempotency_key="k")
    first = await submitter.accept(request)
    await records.write_end(submitter._bus, TaskEnd(id=first.id, kind="echo", state="done"))
    await records.remove_waiting(submitter._bus, first.id)
    again = await submitter.accept(request)
    assert (again.id, again.duplicate) == (first.id, True) and await waiting(submitter) == 0


@pytest.mark.parametrize("age_s", [0.0, 300.0])
async def test_a_crash_between_claim_and_task_is_repaired_by_the_next_caller(submitter, age_s) -> None:
    """The claim was written, the task was not: the client died in between."""
    name = hashlib.sha256(b"k").hexdigest()
    digest = hashlib.sha256(encode({"value": 1})).hexdigest()
    claim = Claim("dead-1", digest, age_s, "echo")
    await submitter._bus.kv(subjects.KV_CLAIMS).create(name, encode(claim))
    accepted = await submitter.accept(SubmitRequest("echo", {"value": 1}, idempotency_key="k"))
    assert (accepted.id, accepted.duplicate) == ("dead-1", True)
    assert decode_any((await records.read_waiting(submitter._bus, "dead-1")).payload) == {"value": 1}


async def test_a_full_queue_frees_the_key_again(submitter) -> None:
    bus, request = submitter._bus, SubmitRequest("echo", {}, idempotency_key="k")
    config = (await bus.api(f"STREAM.INFO.{subjects.WORK}"))["config"]
    await bus.api(f"STREAM.UPDATE.{subjects.WORK}", config | {"max_bytes": 100})
    with pytest.raises(Busy):
        await submitter.accept(request)
    await bus.api(f"STREAM.UPDATE.{subjects.WORK}", config)
    accepted = await submitter.accept(request)
    assert not accepted.duplicate and await waiting(submitter) == 1


@pytest.mark.parametrize("stored", [True, False])
async def test_a_key_names_its_task_when_the_bus_did_not_answer(submitter, monkeypatch, stored) -> None:
    """Whether the task was stored is unknown: the next try with the key must not store a second one."""
    publish, sent = submitter.publish, []

    async def unanswered(prepared) -> None:
        sent.append(prepared.task.id)
        if stored:
            await publish(prepared)
        raise BusUnavailable("the bus did not answer")

    monkeypatch.setattr(submitter, "publish", unanswered)
    request = SubmitRequest("echo", {"value": 1}, idempotency_key="k")
    with pytest.raises(BusUnavailable):
        await submitter.accept(request)
    monkeypatch.setattr(submitter, "publish", publish)
    assert (await submitter.accept(request)).id == sent[0]
    assert await waiting(submitter) == 1


async def due(submitter: Submitter, task: str, within_s: float = 10.0) -> float:
    """Wait until the schedule of `task` has fired; returns when it was seen."""
    bus = submitter._bus
    async with asyncio.timeout(within_s):
        while True:
            info = await bus.api(f"STREAM.INFO.{subjects.LATER}", {"subjects_filter": subjects.later_due(task)})
            if (info["state"].get("subjects") or {}).get(subjects.later_due(task)):
                return time.time()
            await asyncio.sleep(0.05)


async def test_a_delayed_task_is_due_at_its_time(submitter) -> None:
    before = time.time()
    accepted = await submitter.accept(SubmitRequest("echo", {"value": 5}, delay_s=1.2))
    assert await waiting(submitter) == 0
    assert (await records.read_delayed(submitter._bus, accepted.id)).id == accepted.id
    assert await due(submitter, accepted.id) - before >= 1.2
    assert decode_any((await records.read_delayed(submitter._bus, accepted.id)).payload) == {"value": 5}


async def test_too_much_delayed_work_is_refused_and_what_was_accepted_stays(submitter) -> None:
    bus = submitter._bus
    bus.config = replace(bus.config, later_max_bytes=50_000)
    accepted = [(await submitter.accept(SubmitRequest("echo", {"value": "x" * 60_000}, delay_s=60))).id]
    submitter._later_read_at = float("-inf")
    with pytest.raises(Busy, match="limit of delayed work"):
        await submitter.accept(SubmitRequest("echo", {}, delay_s=60))
    assert (await bus.api(f"STREAM.INFO.{subjects.LATER}"))["state"]["messages"] == 1
    assert (await records.read_delayed(bus, accepted[0])).id == accepted[0]
    await submitter.accept(SubmitRequest("echo", {}))


async def test_delayed_tasks_survive_a_kill_one_of_them_overdue(bus_server, submitter) -> None:
    soon = await submitter.accept(SubmitRequest("echo", {}, delay_s=0.5))
    later = await submitter.accept(SubmitRequest("echo", {}, delay_s=3.0))
    back = asyncio.Event()
    submitter._bus.on_back.append(back.set)
    bus_server.kill()
    await asyncio.sleep(1.0)  # the first task is due while no server runs
    await bus_server.start()
    await back.wait()
    await due(submitter, soon.id)
    await due(submitter, later.id)


async def test_a_delayed_task_can_be_removed(submitter) -> None:
    accepted = await submitter.accept(SubmitRequest("echo", {}, delay_s=30))
    await records.remove_waiting(submitter._bus, accepted.id)
    assert await records.read_delayed(submitter._bus, accepted.id) is None
