"""Admission of a delivery: a first one runs at once, and for any other one the records are read first."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mesh.bus.wire import Message
from mesh.messages import Task, TaskEnd, encode
from mesh.tasks import dead_letters, records
from node.work.admission import RUNNING_ELSEWHERE_DELAY_S
from tests.integration.node_parts import ACK, Node, make_node, nak, put_state


@pytest.fixture
async def node(bus_server, tmp_path: Path) -> Node:
    return await make_node(bus_server, tmp_path)


async def test_a_first_delivery_runs_at_once(node: Node) -> None:
    await put_state(node.bus, 1, state="running", node="alive", incarnation="1")
    node.get(1)
    assert [job.id for job in node.workers.jobs] == ["c1-1"]
    assert await node.spy.acks() == []


async def test_a_task_that_ended_is_acknowledged_and_not_run_again(node: Node) -> None:
    await records.write_end(node.bus, TaskEnd(id="c1-1", kind="echo", state="done"))
    reply = node.get(1, delivered=2)
    assert await node.ran() == [] and await node.spy.acks(1) == [(reply, ACK)]
    assert not len(node.deliveries)


async def test_a_task_that_runs_on_a_living_node_is_redelivered_later(node: Node) -> None:
    await put_state(node.bus, 1, state="running", node="alive", incarnation="1")
    reply = node.get(1, delivered=2)
    assert await node.ran() == [] and await node.spy.acks() == [(reply, nak(RUNNING_ELSEWHERE_DELAY_S))]


async def test_a_task_that_was_sent_twice_runs_once_at_a_time_and_is_cancelled_as_one(node: Node) -> None:
    """The bus stored it twice. The copy comes again later; its folder is not the first one's."""
    node.get(1)
    await put_state(node.bus, 1, state="running", node="me", incarnation="1")
    reply = node.get(2, delivered=2, id="c1-1")
    assert await node.ran() == ["c1-1"] and await node.spy.acks(1) == [(reply, nak(RUNNING_ELSEWHERE_DELAY_S))]
    node.get(3, id="c1-1")
    assert await node.ran() == ["c1-1", "c1-1"]
    node.admission.cancel("c1-1")
    assert node.workers.cancelled == ["c1-1", "c1-1"]


@pytest.mark.parametrize(
    ("state", "attempt", "lost"),
    [
        (None, 1, 0),
        ({"state": "running", "node": "dead", "incarnation": "1", "attempt": 2, "lost": 1}, 2, 2),
        ({"state": "running", "node": "alive", "incarnation": "0", "attempt": 1}, 1, 1),
        ({"state": "running", "node": "me", "incarnation": "1", "attempt": 2}, 2, 0),
        ({"state": "queued", "node": "alive", "incarnation": "1", "attempt": 3}, 3, 0),
    ],
)
async def test_any_other_redelivery_runs_with_the_attempts_of_the_record(node, state, attempt, lost) -> None:
    """The death of a node does not count as an attempt."""
    if state:
        await put_state(node.bus, 1, **state)
    node.get(1, delivered=2)
    assert await node.ran() == ["c1-1"] and await node.spy.acks() == []
    assert (node.held(1).attempt.number, node.held(1).attempt.lost) == (attempt, lost)


async def test_a_task_whose_nodes_keep_dying_ends_as_a_dead_letter(node: Node) -> None:
    await put_state(node.bus, 1, state="running", node="dead", incarnation="1", lost=4)
    reply = node.get(1, delivered=9)
    assert await node.ran() == [] and await node.spy.acks(1) == [(reply, ACK)]
    end = await records.read_end(node.bus, "c1-1")
    assert end.error.code == "poison" and (await dead_letters.show(node.bus, "c1-1")).end == end


async def test_a_resent_message_is_checked_against_the_records_first(node: Node) -> None:
    """The server lost its table of message ids in a crash and stored the resent message too."""
    await records.write_end(node.bus, TaskEnd(id="c1-1", kind="echo", state="done"))
    data = encode(Task(id="c1-1", kind="echo", submitted_at=1.0))
    head = b"NATS/1.0\r\nQueztl-Resent: 1\r\n\r\n"
    node.admission.on_message(Message("work.echo.any.normal.c1-1", "acks.7.1", data, head), 7, 1)
    assert await node.ran() == [] and await node.spy.acks(1) == [("acks.7.1", ACK)]


async def test_garbage_is_terminated_and_an_expired_task_ends(node: Node) -> None:
    assert await node.spy.acks() == []
    strange, late = node.get(1, data=b"\xc1"), node.get(2, stored_ago_s=3.0, expires_s=2.0)
    assert sorted(await node.spy.acks(2)) == sorted([(strange, b"+TERM"), (late, ACK)])
    assert (await records.read_end(node.bus, "c1-2")).state == "expired"
    assert await node.ran() == []


@pytest.mark.parametrize("clock_off_s", [-3600.0, 0.0, 3600.0])
async def test_a_task_expires_by_the_clock_of_the_bus_whatever_the_machine_says(
    node: Node, monkeypatch, clock_off_s: float
) -> None:
    """The clocks of its submitter and of this node are an hour off."""
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + clock_off_s)
    node.get(1, stored_ago_s=1.0, expires_s=30.0, submitted_at=true() - clock_off_s)
    late = node.get(2, stored_ago_s=60.0, expires_s=30.0, submitted_at=true() + clock_off_s)
    assert await node.ran() == ["c1-1"] and await node.spy.acks(1) == [(late, ACK)]
    assert (await records.read_end(node.bus, "c1-2")).state == "expired"
