"""The streams as declared: idempotent, lanes that keep work until a node pulls, ends that are published once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import msgspec
import pytest

from mesh import subjects
from mesh.bus import streams
from mesh.bus.client import Bus
from mesh.bus.errors import ApiError, WrongSequence
from mesh.bus.streams import GROUP
from mesh.cluster import quorum_recovery
from mesh.config import LOCAL
from mesh.errors import BusUnavailable
from mesh.lanes import Lane
from mesh.messages import Raw, Task, TaskEnd, TaskState, encode
from mesh.tasks import records


async def test_declaring_twice_changes_nothing(bus_server) -> None:
    bus = await bus_server.connect("a")
    await bus.store("work.echo.any.normal.c1-1", b"x")
    before = await bus.api(f"STREAM.INFO.{subjects.WORK}")
    await streams.declare_streams(bus, replace(LOCAL, work_max_bytes=1 << 20), free_bytes=1 << 30)
    after = await bus.api(f"STREAM.INFO.{subjects.WORK}")
    assert before["config"] == after["config"] and after["state"]["messages"] == 1
    names = {config["name"] for config in streams.stream_configs(LOCAL, 1 << 20)}
    assert names == set((await bus.api("STREAM.NAMES"))["streams"])


async def _until_counted(bus: Bus, lanes: dict[Lane, tuple[int, int, int]]) -> None:
    """Poll the counts: nats-server counts a stored message for its consumer a moment after it confirms it."""
    counted: object = None
    try:
        async with asyncio.timeout(10):
            while (counted := await streams.list_lanes(bus)) != lanes:
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"counted {counted}, not {lanes}") from None


async def test_a_lane_counts_queued_and_delivered_messages(bus_server, eventually) -> None:
    bus = await bus_server.connect("a")
    lane = ("echo", "any", "low")
    await streams.declare_lane(bus, *lane)
    await streams.declare_lane(bus, *lane)
    assert await streams.list_lanes(bus) == {lane: (0, 0, 0)}
    for number in range(3):
        await bus.store(subjects.lane_subject(*lane, f"c1-{number}"), b"x")
    await _until_counted(bus, {lane: (3, 0, 0)})
    got, box = [], bus.new_inbox()
    await bus.subscribe(box, got.append)
    pull = {"batch": 1, "expires": 1_000_000_000, "group": GROUP, "priority": 0}
    durable = subjects.lane_durable(*lane)
    bus.send(f"$JS.API.CONSUMER.MSG.NEXT.{subjects.WORK}.{durable}", json.dumps(pull).encode(), box)
    await eventually(lambda: got)
    assert got[0].subject.endswith("c1-0")
    await _until_counted(bus, {lane: (2, 1, 1)})
    await streams.remove_lane(bus, *lane)
    await streams.remove_lane(bus, *lane)
    assert await streams.list_lanes(bus) == {}
    # The work outlives its lane, and is delivered again when the lane is recreated.
    await streams.declare_lane(bus, *lane)
    await _until_counted(bus, {lane: (3, 0, 0)})


async def test_more_lanes_than_a_page_are_all_listed(bus_server) -> None:
    bus = await bus_server.connect("a")
    await asyncio.gather(*(streams.declare_lane(bus, f"k{number}", "any", "normal") for number in range(300)))
    assert len(await streams.list_lanes(bus)) == 300


async def test_lower_ranks_are_served_first(bus_server, eventually) -> None:
    bus = await bus_server.connect("a")
    lane = ("echo", "any", "normal")
    await streams.declare_lane(bus, *lane)
    got: dict[int, int] = {0: 0, 5: 0}
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{subjects.WORK}.{subjects.lane_durable(*lane)}"
    for rank in (5, 0):
        box = bus.new_inbox()
        await bus.subscribe(box, lambda message, rank=rank: got.update({rank: got[rank] + bool(message.reply)}))
        body = {"batch": 10, "expires": 5_000_000_000, "group": GROUP, "priority": rank}
        bus.send(subject, json.dumps(body).encode(), box)
    await bus.flush()
    for number in range(14):
        await bus.store(subjects.lane_subject(*lane, f"c1-{number}"), b"x")
    await eventually(lambda: sum(got.values()) == 14)
    assert got == {0: 10, 5: 4}


async def test_the_first_end_wins_and_only_it_is_published(bus_server) -> None:
    bus, received = await bus_server.connect("a"), []
    await bus.subscribe(subjects.all_task_updates("c1"), received.append)
    first = TaskEnd(id="c1-1", kind="echo", state="done", result=Raw(encode(1)))
    assert await records.write_end(bus, first) is True
    assert await records.write_end(bus, TaskEnd(id="c1-1", kind="echo", state="cancelled")) is False
    await bus.store(subjects.state("c1-2"), encode(TaskState(id="c1-2", kind="echo", state="running")))
    await bus.store(subjects.end("c2-1"), encode(TaskEnd(id="c2-1", kind="echo", state="done")))
    await bus.flush()
    assert [message.subject for message in received] == ["task_updates.c1.1.end", "task_updates.c1.2.state"]
    assert msgspec.msgpack.decode(received[0].data, type=TaskEnd).state == "done"
    assert (await records.read_end(bus, "c1-1")).state == "done"


async def test_a_refusal_because_of_an_uncommitted_end_is_not_believed(bus_server, monkeypatch) -> None:
    """A Raft leader that was cut off refuses so: whether the task has ended is unknown."""
    bus = await bus_server.connect("a")

    async def store(*_: object, **__: object) -> int:
        raise WrongSequence("somebody else wrote it first")

    monkeypatch.setattr(bus, "store", store)
    with pytest.raises(BusUnavailable, match="does not know yet"):
        await records.write_end(bus, TaskEnd(id="c1-9", kind="echo", state="cancelled"))


async def test_many_ends_are_read_at_once(bus_server) -> None:
    bus = await bus_server.connect("a")
    await asyncio.gather(
        *(records.write_end(bus, TaskEnd(id=f"c1-{n}", kind="echo", state="done")) for n in range(600))
    )
    found = await records.read_ends(bus, [f"c1-{n}" for n in range(700)])
    assert set(found) == {f"c1-{n}" for n in range(600)}
    assert await records.read_ends(bus, []) == {}
    assert await records.read_end(bus, "c1-650") is None


async def test_a_task_is_found_and_removed_wherever_it_waits(bus_server) -> None:
    bus = await bus_server.connect("a")
    task = Task(id="c1-1", kind="echo")
    assert await records.read_waiting(bus, "c1-1") is None
    await bus.store(subjects.lane_subject("echo", "p-1", "low", "c1-1"), encode(task))
    assert await records.read_waiting(bus, "c1-1") == task
    await records.remove_waiting(bus, "c1-1")
    assert await records.read_waiting(bus, "c1-1") is None


async def test_a_message_can_not_be_in_two_lanes(bus_server) -> None:
    bus = await bus_server.connect("a")
    await streams.declare_lane(bus, "echo", "any", "normal")
    overlapping = streams.lane_config("echo", "any", "normal", LOCAL) | {"durable_name": "x", "name": "x"}
    with pytest.raises(ApiError) as refused:
        await bus.create_consumer(subjects.WORK, overlapping)
    assert refused.value.error_code == 10100


async def test_a_rescue_asks_again_for_consumers_when_one_request_is_not_answered(bus_server, monkeypatch) -> None:
    """Servers that elect leaders leave requests unanswered: one such ended the rescue."""
    bus, lane, failures, steps = await bus_server.connect("a"), ("echo", "any", "normal"), [0, 0], list[str]()
    durable = subjects.lane_durable(*lane)
    await streams.declare_lane(bus, *lane)
    await bus.store(subjects.lane_subject(*lane, "c1-1"), b"x")
    before = await bus.api(f"CONSUMER.INFO.{subjects.WORK}.{durable}")
    lists, creates = Bus.list_consumers, Bus.create_consumer

    async def list_consumers(bus: Bus, stream: str):
        failures[0] += 1
        if failures[0] in (1, 3):
            raise BusUnavailable("the bus did not answer")
        found = await lists(bus, stream)
        return found if failures[0] == 2 else found._replace(silent=[durable])

    async def create_consumer(bus: Bus, *arguments) -> None:
        failures[1] += 1
        if failures[1] == 1:
            raise BusUnavailable("the bus did not answer")
        await creates(bus, *arguments)

    monkeypatch.setattr(quorum_recovery, "_LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(Bus, "list_consumers", list_consumers)
    monkeypatch.setattr(Bus, "create_consumer", create_consumer)
    await quorum_recovery._revive_consumers(bus, subjects.WORK, steps.append)
    assert failures == [2, 0] and not steps, "all of them had a leader"
    monkeypatch.setattr(quorum_recovery, "_LEADER_WITHIN_S", 0.2)
    await quorum_recovery._revive_consumers(bus, subjects.WORK, steps.append)
    assert failures[1] == 2 and steps[0].startswith("1 consumers of WORK elect no leader")
    after = await bus.api(f"CONSUMER.INFO.{subjects.WORK}.{durable}")
    assert after["created"] > before["created"] and (after["num_pending"], after["num_ack_pending"]) == (1, 0)


async def test_a_condition_is_tried_until_it_holds_or_its_time_is_over(monkeypatch) -> None:
    monkeypatch.setattr(quorum_recovery, "_LOOK_EVERY_S", 0.0)
    outcomes: list[bool | None] = [None, False, None, True, None]

    async def condition() -> bool:
        found = outcomes.pop(0)
        if found is None:
            raise BusUnavailable("not answered")
        return found

    assert await quorum_recovery._until(condition, 10.0) and outcomes == [None]
    with pytest.raises(BusUnavailable, match="not answered"):
        await quorum_recovery._until(condition, -1.0)
    outcomes = [False, True]
    assert not await quorum_recovery._until(condition, -1.0)
