"""What a node says to the bus about deliveries, and what it must not say: NAK, +WPI and +ACK are not fenced."""

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
    """Return when the records sent before are stored: one that is stored after them was confirmed."""
    await bus.store(subjects.state("c1-99"), b"")


@pytest.fixture
async def node(bus_server, tmp_path: Path) -> Node:
    return await make_node(bus_server, tmp_path)


async def test_the_end_is_stored_before_the_acknowledgement(node: Node, bus_server) -> None:
    """While the bus does not take it, nothing is said, and it is offered until it does."""
    other = await bus_server.connect("operator")
    config = (await other.api(f"STREAM.INFO.{subjects.TASKS}"))["config"]
    await other.api(f"STREAM.UPDATE.{subjects.TASKS}", config | {"max_msg_size": 10})
    reply = node.get(1)
    done(node, 1)
    await node.bus.flush()
    assert await node.spy.said() == [] and await records.read_end(node.bus, "c1-1") is None
    await other.api(f"STREAM.UPDATE.{subjects.TASKS}", config)
    assert await node.spy.said(1) == [(reply, ACK)]
    assert (await records.read_end(node.bus, "c1-1")).state == "done" and not len(node.deliveries)


async def test_somebody_elses_end_stands_and_is_acknowledged(node: Node) -> None:
    first = TaskEnd(id="c1-1", kind="echo", state="done", node="other")
    reply = node.get(1)
    await records.write_end(node.bus, first)
    done(node, 1)
    assert await node.spy.said(1) == [(reply, ACK)] and await records.read_end(node.bus, "c1-1") == first


async def test_a_refusal_that_is_not_true_is_offered_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a server that led and was cut off: it refuses an end for one that never came to be."""
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
    assert await node.spy.said(1) == [(reply, ACK)]
    assert refused and (await records.read_end(node.bus, "c1-1")).state == "done"


async def test_a_failed_attempt_is_noted_before_the_task_goes_back(node: Node) -> None:
    reply = node.get(1)
    done(node, 1, TaskError("failed", "no luck"))
    assert await node.spy.said(1) == [(reply, nak(node.bus.config.retry_base_s))]
    state = await records.read_state(node.bus, "c1-1")
    assert (state.state, state.attempt, state.error.message) == ("queued", 2, "no luck")


async def test_a_task_whose_failed_attempt_is_not_noted_yet_does_not_go_back(node: Node, bus_server) -> None:
    """It is noted as running here: whoever got it would leave it to this node."""
    other = await bus_server.connect("operator")
    config = (await other.api(f"STREAM.INFO.{subjects.TASKS}"))["config"]
    await other.api(f"STREAM.UPDATE.{subjects.TASKS}", config | {"max_msg_size": 10})
    reply = node.get(1)
    done(node, 1, TaskError("failed", "no luck"))
    await node.bus.flush()
    assert await node.spy.said() == [] and len(node.deliveries) == 1
    await other.api(f"STREAM.UPDATE.{subjects.TASKS}", config)
    assert await node.spy.said(1) == [(reply, nak(node.bus.config.retry_base_s))]


@pytest.mark.parametrize("why", ["stall", "cut"])
async def test_nothing_is_said_about_deliveries_from_before_a_stall_or_a_cut(node, bus_server, eventually, why) -> None:
    """But the end: that is conditional, and may be the first."""
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
    assert all(one.suspect and not one.trusted for one in node.deliveries)
    node.deliveries.nak(node.held(1), 1.0)
    node.deliveries.ack(node.held(2))
    done(node, 3)
    await eventually(lambda: not len(node.deliveries))
    assert await node.spy.said() == []
    assert (await records.read_end(node.bus, "c1-3")).state == "done"


async def test_a_delivery_that_comes_again_is_ours_again_and_runs_once(node: Node) -> None:
    node.get(1)
    node.deliveries.distrust()
    reply = node.get(1, delivered=2)
    done(node, 1)
    assert await node.spy.said(1) == [(reply, ACK)] and len(node.workers.jobs) == 1


async def test_the_blobs_of_a_delivery_go_with_it_though_it_came_again_meanwhile(node: Node, tmp_path: Path) -> None:
    ref = await node.bus.objects.put(b"bytes", "text/plain")
    node.get(1, delivered=2, blobs=(ref.blob,))
    assert await node.ran() == ["c1-1"]
    (job,) = node.workers.jobs
    assert job.blobs[ref.blob].read_bytes() == b"bytes"
    node.deliveries.distrust()
    node.get(1, delivered=3)
    node.admission.on_ended(job)
    assert not job.blobs[ref.blob].parent.exists()


async def test_after_a_stall_what_has_not_started_is_dropped_and_what_lay_in_the_socket_is_doubted(node) -> None:
    await records.write_end(node.bus, TaskEnd(id="c1-3", kind="echo", state="done"))
    node.get(1)
    node.get(2)
    node.admission.on_started(node.workers.jobs[0])
    loop = asyncio.get_running_loop()
    node.admission.alive_at = loop.time() - 60.0
    node.get(3)  # what comes first after the stall is how it is noticed
    assert node.workers.cancelled == ["c1-2"] and node.held(2).withdrawn and not node.held(1).withdrawn
    assert await node.ran() == ["c1-1", "c1-2"] and await node.spy.said() == []
    assert node.deliveries.get(3) is None
    done(node, 2, TaskError("cancelled", "its worker was told so"))
    await node.bus.flush()
    assert await records.read_end(node.bus, "c1-2") is None and node.deliveries.get(2) is None
    node.admission._doubt_until -= DOUBT_S
    node.get(4)
    assert [job.id for job in node.workers.jobs][2:] == ["c1-4"] and node.held(4).trusted


async def test_what_was_given_back_while_it_was_let_in_does_not_run_here_as_well(node: Node) -> None:
    """A node that took long tasks for short ones gives back those whose records it is still reading, too."""
    node.workers.rates = {"echo": Rate(mean_s=1.0, samples=1)}
    for seq in range(1, 11):
        node.get(seq, delivered=2)
    node.admission.shed()
    assert await node.spy.said() == [(f"acks.{seq}.2", nak(SHED_DELAY_S)) for seq in range(5, 11)]
    node.get(10, delivered=3)  # it comes again, before the first time is over
    assert sorted(await node.ran()) == ["c1-1", "c1-10", "c1-2", "c1-3", "c1-4"]
    assert node.held(10).delivered == 3 and node.admission.unstarted == 5


async def test_what_is_called_back_from_behind_a_long_one_goes_back_to_its_lane(node: Node) -> None:
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
    assert [reply for reply, _ in await node.spy.said()] == [f"acks.{seq}.1" for seq in range(6, 11)]


async def test_what_was_noted_as_running_and_is_called_back_is_no_longer_noted_so(node: Node) -> None:
    """Else the node that is given it next would leave it to this one, again and again."""
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
    assert await records.read_state(node.bus, "c1-2") is None, "of what ran for a moment nothing was said"
    node.admission.on_started(node.workers.jobs[0])
    node.completion.write_states(node.held(1).started_at + after_s)
    await stored(node.bus)
    assert (await records.read_state(node.bus, "c1-1")).state == "running", "it begins anew, and that is told anew"


async def test_a_task_that_is_cancelled_while_it_is_let_in_does_not_run(node: Node) -> None:
    reply = node.get(1, delivered=2)
    node.admission.cancel("c1-1")
    assert await node.ran() == [] and await node.spy.said(1) == [(reply, ACK)]
    assert not len(node.deliveries) and not node.admission.unstarted


async def test_work_is_renewed_at_a_third_of_the_wait(node: Node) -> None:
    reply, taken_at = node.get(1), node.held(1).taken_at
    every_s = node.bus.config.ack_wait_s / 3
    for age_s in (every_s - 0.1, every_s, every_s + 0.1, 2 * every_s - 0.1, 2 * every_s):
        node.deliveries.renew(taken_at + age_s, every_s)
    assert await node.spy.said(2) == [(reply, RENEW)] * 2


# --- what others are told ---------------------------------------------------------------------------
@pytest.fixture
async def heard(node: Node, bus_server) -> Callable[[], Awaitable[list[list[tuple[int, int]]]]]:
    """The (sequence, delivery count) of each announcement since the last call."""
    found: list[HeldSet] = []
    listener = await bus_server.connect("listener")
    await listener.subscribe(
        subjects.ALL_HELD, lambda one: found.append(msgspec.msgpack.decode(one.data, type=HeldSet))
    )

    async def since_last() -> list[list[tuple[int, int]]]:
        await node.bus.flush()
        await listener.flush()
        taken = [[(held.stream_seq, held.delivered) for held in one.held] for one in found]
        found.clear()
        return taken

    return since_last


async def test_what_is_held_longer_than_50_ms_is_announced_once_as_a_set(node: Node, heard) -> None:
    after_s = node.bus.config.announce_after_s
    node.get(1)
    node.get(2, delivered=3)
    taken_at = node.held(2).taken_at
    node.deliveries.announce(taken_at + after_s - 0.01, after_s)
    assert await heard() == []
    node.deliveries.announce(taken_at + after_s, after_s)
    node.deliveries.announce(taken_at + 2 * after_s, after_s)
    assert await heard() == [[(1, 1), (2, 3)]]
    node.deliveries.announce(taken_at + 1.0, after_s, force=True)  # for a master that is new
    assert await heard() == [[(1, 1), (2, 3)]]
    node.deliveries.ack(node.held(1))
    node.deliveries.announce(taken_at + 1.0, after_s)
    node.deliveries.distrust()
    node.deliveries.announce(taken_at + 1.0, after_s)
    assert await heard() == [[(2, 3)], []]
    node.deliveries.announce(taken_at + 2.0, after_s, force=True)
    assert await heard() == []


async def test_a_state_is_written_only_for_what_runs_past_100_ms(node: Node) -> None:
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
