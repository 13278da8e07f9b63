"""Acknowledgements of a node: which it sends, and which it must not send, as NAK, +WPI and +ACK are not fenced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from mesh import subjects
from mesh.bus.client import Bus
from mesh.bus.errors import WrongSequence
from mesh.bus.publisher import Settled
from mesh.messages import HeldSet, TaskEnd, TaskError
from mesh.tasks import records
from node.executor.dispatch import Rate
from node.work.admission import DOUBT_S, SHED_DELAY_S
from tests.integration.node_parts import ACK, RENEW, Node, Spy, done, make_node, nak


async def stored(bus: Bus) -> None:
    """Wait until the records sent before are stored: a later one is confirmed."""
    await bus.store(subjects.state("c1-99"), b"")


@pytest.fixture
async def node(bus_server, tmp_path: Path) -> Node:
    return await make_node(bus_server, tmp_path)


async def test_the_end_is_stored_before_the_acknowledgement(node: Node, bus_server) -> None:
    """While the bus refuses the end, the node sends no acknowledgement, and repeats the end until it is stored."""
    other = await bus_server.connect("operator")
    config = (await other.api(f"STREAM.INFO.{subjects.TASKS}"))["config"]
    await other.api(f"STREAM.UPDATE.{subjects.TASKS}", config | {"max_msg_size": 10})
    reply = node.get(1)
    done(node, 1)
    await node.bus.flush()
    assert await node.spy.acks() == [] and await records.read_end(node.bus, "c1-1") is None
    await other.api(f"STREAM.UPDATE.{subjects.TASKS}", config)
    assert await node.spy.acks(1) == [(reply, ACK)]
    assert (await records.read_end(node.bus, "c1-1")).state == "done" and not len(node.deliveries)


async def test_an_end_of_another_node_is_kept_and_acknowledged(node: Node) -> None:
    first = TaskEnd(id="c1-1", kind="echo", state="done", node="other")
    reply = node.get(1)
    await records.write_end(node.bus, first)
    done(node, 1)
    assert await node.spy.acks(1) == [(reply, ACK)] and await records.read_end(node.bus, "c1-1") == first


async def test_an_end_that_is_refused_wrongly_is_stored_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Raft leader that was cut off refuses an end because of one that was never committed."""
    real, refused = node.bus.post, []

    def post(subject: str, data: bytes, headers: bytes, settled: Settled) -> None:
        if not refused:
            refused.append(subject)
            settled(b"", WrongSequence("somebody else wrote it first"))
        else:
            real(subject, data, headers, settled)

    monkeypatch.setattr(node.bus, "post", post)
    reply = node.get(1)
    done(node, 1)
    assert await node.spy.acks(1) == [(reply, ACK)]
    assert refused and (await records.read_end(node.bus, "c1-1")).state == "done"


async def test_a_failed_attempt_is_recorded_before_the_task_is_redelivered(node: Node) -> None:
    reply = node.get(1)
    done(node, 1, TaskError("failed", "no luck", retryable=True))
    assert await node.spy.acks(1) == [(reply, nak(node.bus.config.retry_base_s))]
    state = await records.read_state(node.bus, "c1-1")
    assert (state.state, state.attempt, state.error.message) == ("queued", 2, "no luck")


async def test_a_task_whose_failed_attempt_is_not_recorded_yet_is_not_redelivered(node: Node, bus_server) -> None:
    """It is recorded as running here: the next node would leave it to this one."""
    other = await bus_server.connect("operator")
    config = (await other.api(f"STREAM.INFO.{subjects.TASKS}"))["config"]
    await other.api(f"STREAM.UPDATE.{subjects.TASKS}", config | {"max_msg_size": 10})
    reply = node.get(1)
    done(node, 1, TaskError("failed", "no luck", retryable=True))
    await node.bus.flush()
    assert await node.spy.acks() == [] and len(node.deliveries) == 1
    await other.api(f"STREAM.UPDATE.{subjects.TASKS}", config)
    assert await node.spy.acks(1) == [(reply, nak(node.bus.config.retry_base_s))]


@pytest.mark.parametrize("why", ["stall", "cut"])
async def test_deliveries_from_before_a_stall_or_a_cut_get_no_acknowledgement(
    node, bus_server, eventually, why
) -> None:
    """Except for the end, whose write is conditional and may be the first."""
    for seq in (1, 2, 3):
        node.get(seq)
    if why == "stall":
        node.deliveries.distrust()
    else:
        bus_server.kill()
        await eventually(lambda: not node.bus.connected)
        await bus_server.start()
        await eventually(lambda: node.bus.connected, within_s=20)
        node.spy = await Spy(await bus_server.connect("spy 2"), node.bus).start()
    now = asyncio.get_running_loop().time()
    node.deliveries.renew(now + 1000, 5.0)
    assert all(delivery.suspect and not delivery.trusted for delivery in node.deliveries)
    node.deliveries.nak(node.held(1), 1.0)
    node.deliveries.ack(node.held(2))
    done(node, 3)
    await eventually(lambda: not len(node.deliveries))
    assert await node.spy.acks() == []
    assert (await records.read_end(node.bus, "c1-3")).state == "done"


async def test_a_redelivery_is_trusted_again_and_runs_once(node: Node) -> None:
    node.get(1)
    node.deliveries.distrust()
    reply = node.get(1, delivered=2)
    done(node, 1)
    assert await node.spy.acks(1) == [(reply, ACK)] and len(node.workers.jobs) == 1


async def test_the_blobs_of_a_delivery_are_removed_with_it_after_a_redelivery(node: Node, tmp_path: Path) -> None:
    ref = await node.bus.objects.put(b"bytes", "text/plain")
    node.get(1, delivered=2, blobs=(ref.blob,))
    assert await node.ran() == ["c1-1"]
    (job,) = node.workers.jobs
    assert job.blobs[ref.blob].read_bytes() == b"bytes"
    node.deliveries.distrust()
    node.get(1, delivered=3)
    node.admission.on_ended(job)
    assert not job.blobs[ref.blob].parent.exists()


async def test_after_a_stall_unstarted_work_is_dropped_and_messages_in_the_socket_are_doubted(node) -> None:
    await records.write_end(node.bus, TaskEnd(id="c1-3", kind="echo", state="done"))
    node.get(1)
    node.get(2)
    node.admission.on_started(node.workers.jobs[0])
    loop = asyncio.get_running_loop()
    node.admission.alive_at = loop.time() - 60.0
    node.get(3)  # the first message after the stall reveals it
    assert node.workers.cancelled == ["c1-2"] and node.held(2).withdrawn and not node.held(1).withdrawn
    assert await node.ran() == ["c1-1", "c1-2"] and await node.spy.acks() == []
    assert node.deliveries.get(3) is None
    done(node, 2, TaskError("cancelled", "its worker was told so"))
    await node.bus.flush()
    assert await records.read_end(node.bus, "c1-2") is None and node.deliveries.get(2) is None
    node.admission._doubt_until -= DOUBT_S
    node.get(4)
    assert [job.id for job in node.workers.jobs][2:] == ["c1-4"] and node.held(4).trusted


async def test_a_task_returned_during_its_admission_does_not_run_here(node: Node) -> None:
    """A node that took long tasks for short ones also returns those whose records it is still reading."""
    node.workers.rates = {"echo": Rate(mean_s=1.0, samples=1)}
    for seq in range(1, 11):
        node.get(seq, delivered=2)
    node.admission.shed()
    assert await node.spy.acks() == [(f"acks.{seq}.2", nak(SHED_DELAY_S)) for seq in range(5, 11)]
    node.get(10, delivered=3)  # a redelivery, before the first admission is over
    assert sorted(await node.ran()) == ["c1-1", "c1-10", "c1-2", "c1-3", "c1-4"]
    assert node.held(10).delivered == 3 and node.admission.unstarted == 5


async def test_jobs_recalled_from_behind_a_long_one_return_to_their_lane(node: Node) -> None:
    for seq in range(1, 11):
        node.get(seq)
    for job in node.workers.jobs:
        node.admission.on_started(job)
    assert not node.admission.unstarted
    node.workers.rates = {"echo": Rate(mean_s=1.0, samples=1)}
    for job in node.workers.jobs[1:]:
        node.admission.on_called_back(job)
    assert node.admission.unstarted == 9
    node.admission.shed()
    assert [reply for reply, _ in await node.spy.acks()] == [f"acks.{seq}.1" for seq in range(6, 11)]


async def test_a_recalled_job_is_no_longer_recorded_as_running(node: Node) -> None:
    """Otherwise the next node would leave it to this one again and again."""
    after_s = node.bus.config.state_after_s + 0.01
    for seq in (1, 2):
        node.get(seq)
        node.admission.on_started(node.workers.jobs[-1])
    node.held(2).started_at += 1.0
    node.completion.write_states(node.held(1).started_at + after_s)
    for job in node.workers.jobs:
        node.admission.on_called_back(job)
    await stored(node.bus)
    assert (await records.read_state(node.bus, "c1-1")).state == "queued"
    assert await records.read_state(node.bus, "c1-2") is None, "a short run has no state record"
    node.admission.on_started(node.workers.jobs[0])
    node.completion.write_states(node.held(1).started_at + after_s)
    await stored(node.bus)
    assert (await records.read_state(node.bus, "c1-1")).state == "running", "the new run is recorded again"


async def test_a_task_that_is_cancelled_during_its_admission_does_not_run(node: Node) -> None:
    reply = node.get(1, delivered=2)
    node.admission.cancel("c1-1")
    assert await node.ran() == [] and await node.spy.acks(1) == [(reply, ACK)]
    assert not len(node.deliveries) and not node.admission.unstarted


async def test_work_is_renewed_at_a_third_of_the_wait(node: Node) -> None:
    reply, taken_at = node.get(1), node.held(1).taken_at
    every_s = node.bus.config.ack_wait_s / 3
    for age_s in (every_s - 0.1, every_s, every_s + 0.1, 2 * every_s - 0.1, 2 * every_s):
        node.deliveries.renew(taken_at + age_s, every_s)
    assert await node.spy.acks(2) == [(reply, RENEW)] * 2


# --- announcements ----------------------------------------------------------------------------------
@pytest.fixture
async def announced(node: Node, bus_server) -> Callable[[], Awaitable[list[list[tuple[int, int]]]]]:
    """`announced()`: the (sequence, delivery count) pairs of each announcement since the last call."""
    found: list[HeldSet] = []
    listener = await bus_server.connect("listener")
    await listener.subscribe(
        subjects.ALL_HELD, lambda message: found.append(msgspec.msgpack.decode(message.data, type=HeldSet))
    )

    async def since_last() -> list[list[tuple[int, int]]]:
        await node.bus.flush()
        await listener.flush()
        taken = [[(held.stream_seq, held.delivered) for held in held_set.held] for held_set in found]
        found.clear()
        return taken

    return since_last


async def test_deliveries_held_longer_than_50_ms_are_announced_once_as_a_set(node: Node, announced) -> None:
    after_s = node.bus.config.announce_after_s
    node.get(1)
    node.get(2, delivered=3)
    taken_at = node.held(2).taken_at
    node.deliveries.announce(taken_at + after_s - 0.01, after_s)
    assert await announced() == []
    node.deliveries.announce(taken_at + after_s, after_s)
    node.deliveries.announce(taken_at + 2 * after_s, after_s)
    assert await announced() == [[(1, 1), (2, 3)]]
    node.deliveries.announce(taken_at + 1.0, after_s, force=True)  # for a new leader
    assert await announced() == [[(1, 1), (2, 3)]]
    node.deliveries.ack(node.held(1))
    node.deliveries.announce(taken_at + 1.0, after_s)
    node.deliveries.distrust()
    node.deliveries.announce(taken_at + 1.0, after_s)
    assert await announced() == [[(2, 3)], []]
    node.deliveries.announce(taken_at + 2.0, after_s, force=True)
    assert await announced() == []


async def test_a_state_is_written_only_for_a_job_that_runs_past_100_ms(node: Node) -> None:
    after_s = node.bus.config.state_after_s
    node.get(1)
    node.get(2)
    job = node.workers.jobs[0]
    node.admission.on_started(job)
    started_at = node.held(1).started_at = node.held(1).taken_at + 5.0  # it waited for a worker
    node.completion.write_states(started_at + after_s - 0.01)
    await stored(node.bus)
    assert await records.read_state(node.bus, "c1-1") is None
    node.completion.write_states(started_at + after_s)
    node.completion.write_states(started_at + 2 * after_s)
    await stored(node.bus)
    state = await records.read_state(node.bus, "c1-1")
    assert (state.state, state.node, state.incarnation, state.attempt) == ("running", "me", "1", 1)
    assert await records.read_state(node.bus, "c1-2") is None
    info = await node.bus.api(f"STREAM.INFO.{subjects.TASKS}")
    assert info["state"]["last_seq"] == 3, "written once, between the two records of `stored`"
