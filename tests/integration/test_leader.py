"""Garbage collection and alarms of the leader on a real bus, which no other node does."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec
import pytest

from mesh import messages, subjects
from mesh.bus.client import Bus
from mesh.bus.kv import Kv
from mesh.bus.streams import declare_lane, list_lanes
from mesh.config import LOCAL
from mesh.coordination import Lease, MeshEvent, Plan
from mesh.errors import NotFound
from mesh.leader import journal
from mesh.leader.election import Election
from mesh.leader.garbage_collection import GarbageCollector
from mesh.leader.leader import Leader
from mesh.limits import Limits
from mesh.membership.connections import connection_name
from mesh.membership.registry import Registry
from mesh.messages import NodeRecord
from mesh.tasks import blob_refs
from node.work.placement_plan import PlacementPlan
from tests.nodes import eventually as until


@pytest.fixture
async def elected(bus_server, eventually):
    """`bus, election, leader = await elected(config)`: an elected leader."""
    tasks: list[asyncio.Task[None]] = []

    async def start(config) -> tuple[Bus, Election, Leader]:
        bus = await bus_server.connect(connection_name("m", "1"))
        await bus.kv(subjects.KV_NODES).put("m", messages.encode(NodeRecord(id="m", name="m", incarnation="1")))
        registry = Registry(bus, "m", config)
        await registry.start()
        election = Election(bus, "m", "1", config, registry)
        clearing = GarbageCollector(bus, lambda: election.fence, config)
        leader = Leader(bus, "m", election, registry, config, {}, services=(clearing.lanes,))
        tasks.extend(asyncio.create_task(loop) for loop in (registry.run(), election.run(), leader.run()))
        await eventually(lambda: election.is_leader)
        return bus, election, leader

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_too_many_lanes_raise_one_alarm(
    bus_server, elected: Callable[..., Awaitable[tuple[Bus, Election, Leader]]], eventually
) -> None:
    bus, events = await bus_server.connect("other"), []
    await bus.subscribe(
        "mesh.event.>", lambda message: events.append(msgspec.msgpack.decode(message.data, type=MeshEvent))
    )
    for number in range(3):
        await declare_lane(bus, "echo", f"node-n{number}", "normal")
    _, election, leader = await elected(replace(LOCAL, limits=Limits(lanes=3)))
    await eventually(lambda: leader.alarms)
    assert leader.alarms[0].startswith("3 of 3 lanes for work with requirements;")
    await eventually(lambda: [event for event in events if event.type == journal.ALARM])
    (alarm,) = [event for event in events if event.type == journal.ALARM]
    assert alarm.fence == election.fence and alarm.detail == {"name": "lanes", "says": leader.alarms[0]}


async def test_nodes_and_registrations_raise_an_alarm_at_four_fifths(bus_server, elected, eventually) -> None:
    bus = await bus_server.connect("other")
    for number in range(7):  # and the leader itself
        record = NodeRecord(id=f"n{number}", name="n", incarnation="1")
        if number < 4:
            record = NodeRecord(id=f"r{number}", name="r", incarnation="", state="registered", registered_by="m")
        await bus.kv(subjects.KV_NODES).put(record.id, messages.encode(record))
    _, _, leader = await elected(replace(LOCAL, limits=Limits(nodes=5, registered_nodes=5)))
    await eventually(lambda: len(leader.alarms) == 2)
    assert leader.alarms[0].startswith("4 of 5 nodes;")
    assert leader.alarms[1].startswith("4 of 5 registered nodes that have not connected; beyond the limit: 429")


async def test_a_lane_that_got_a_task_while_it_was_removed_is_declared_again(bus_server) -> None:
    bus = await bus_server.connect("other")
    lane, empty = ("echo", "p-1", "normal"), ("echo", "p-2", "normal")
    await bus.store(subjects.lane_subject(*lane, "c1-1"), b"x")
    collector = GarbageCollector(bus, lambda: 1, LOCAL)
    assert await collector._restored({lane: 0.0, empty: 0.0}, 1.0) == {empty: 0.0}
    assert list(await list_lanes(bus)) == [lane]
    assert await collector._restored({empty: 0.0}, 1000.0) == {}


async def test_a_queue_that_fills_up_raises_an_alarm_before_it_is_full(bus_server, elected, eventually) -> None:
    bus = await bus_server.connect("other")
    info = await bus.api(f"STREAM.INFO.{subjects.WORK}")
    await bus.api(f"STREAM.UPDATE.{subjects.WORK}", info["config"] | {"max_bytes": 100_000})
    for number in range(9):
        await bus.store(subjects.lane_subject("full", "any", "normal", f"c1-{number}"), bytes(10_000))
    _, _, leader = await elected(LOCAL)
    await eventually(lambda: leader.alarms)
    (alarm,) = leader.alarms
    assert alarm.startswith("The queue is 9") and "will be refused (503)" in alarm


async def test_the_plan_of_a_later_leader_is_not_overwritten(bus_server, elected, eventually, monkeypatch) -> None:
    """Neither an existing plan, nor one that is written between the read and the write."""
    other = await bus_server.connect("other")
    fences: list[int] = []  # of the later leader
    real = Kv.get

    async def get(kv: Kv, key: str):
        entry = await real(kv, key)
        if kv.bucket == subjects.KV_PLAN and kv is not watched and not fences:
            held = messages.encode(Lease("other", "1", 0.0))
            fences.append(await other.kv(subjects.KV_LEASE).put(subjects.LEASE_KEY, held))
            await other.kv(subjects.KV_PLAN).put(subjects.PLAN_KEY, messages.encode(Plan(fence=fences[0])))
        return entry

    watched = other.kv(subjects.KV_PLAN)
    monkeypatch.setattr(Kv, "get", get)
    bus, election, _ = await elected(LOCAL)
    await eventually(lambda: fences and (not election.is_leader or election.fence > fences[0]))
    await bus.flush()  # a write of the earlier term has arrived
    assert messages.decode_any((await watched.get(subjects.PLAN_KEY)).value)["fence"] >= fences[0]


async def test_a_plan_with_a_fence_that_no_leader_has_is_replaced(bus_server, elected, eventually) -> None:
    """One such record shut out every later plan, at the leader and at all nodes."""
    other = await bus_server.connect("other")
    forged = Plan(fence=1 << 40, number=1 << 40, ranks={"echo": {"n1": 9}})
    kv = other.kv(subjects.KV_PLAN)
    await kv.put(subjects.PLAN_KEY, messages.encode(forged))
    follower = PlacementPlan(other, "n1")
    await follower.start()
    assert follower.rank("echo") == 0  # ignored at the start
    _, election, _ = await elected(LOCAL)

    async def is_the_leaders() -> bool:
        entry = await kv.get(subjects.PLAN_KEY)
        return messages.decode_any(entry.value)["fence"] == election.fence

    await until(is_the_leaders, 20, "the leader writes no plan")
    await eventually(lambda: follower.plan.fence == election.fence)
    given = await other.kv(subjects.KV_LEASE).put("other", b"x")
    assert given > election.fence
    # The third has a number that the bucket has given, and with which no term began.
    for fence in (forged.fence, election.fence, given):
        again = Plan(fence=fence, number=1 << 40, ranks={"echo": {"n1": 9}})
        await kv.put(subjects.PLAN_KEY, messages.encode(again))
        await until(is_the_leaders, 20, "the forged plan stays")
        await eventually(lambda: follower.plan.number < 1 << 40 and not follower.rank("echo"))


async def test_the_leader_removes_unused_lanes(bus_server, elected, eventually) -> None:
    bus = await bus_server.connect("other")
    for kind in ("idle", "full"):
        await declare_lane(bus, kind, "any", "normal")
    await bus.store(subjects.lane_subject("full", "any", "normal", "c1-1"), b"x")
    await elected(replace(LOCAL, lane_idle_s=0.4))
    lanes: set[str] = set()

    async def look() -> bool:
        lanes.clear()
        lanes.update(lane[0] for lane in await list_lanes(bus))
        return "idle" not in lanes

    async with asyncio.timeout(20):
        while not await look():
            await asyncio.sleep(0.02)
    assert lanes == {"full"}, "a lane with queued work stays"


async def test_a_node_that_is_not_leader_removes_nothing(bus_server) -> None:
    bus, asked = await bus_server.connect("other"), asyncio.Event()
    await declare_lane(bus, "idle", "any", "normal")
    looks = 0

    def fence() -> int:
        nonlocal looks
        looks += 1
        if looks == 2:
            asked.set()
        return 0

    task = asyncio.create_task(GarbageCollector(bus, fence, replace(LOCAL, lane_idle_s=0.1)).lanes(5))
    await asyncio.wait_for(asked.wait(), 10)
    task.cancel()
    assert list(await list_lanes(bus)) == [("idle", "any", "normal")]


async def test_a_blob_stays_for_a_while_after_the_last_task_that_named_it(bus_server) -> None:
    bus = await bus_server.connect("other")
    blob, kept = (await bus.objects.put(b"x", "text/plain")).blob, (await bus.objects.put(b"y", keep=True)).blob
    for blob_id in (blob, kept):
        await blob_refs.add(bus, [blob_id], "c1-1")
        await blob_refs.add(bus, [blob_id], "c1-2")
    await blob_refs.release(bus, [blob, kept], "c1-1")
    assert await blob_refs.sweep(bus) == 0
    key = f"$KV.{subjects.KV_BLOB_REFS}.{blob}.c1-1"
    stored = await bus.api(f"STREAM.MSG.GET.KV_{subjects.KV_BLOB_REFS}", {"last_by_subj": key})
    assert f"Nats-TTL: {blob_refs.GRACE_S}s".encode() in base64.b64decode(stored["message"]["hdrs"])
    for task in ("c1-1", "c1-2"):  # the grace is over
        for blob_id in (blob, kept):
            await bus.kv(subjects.KV_BLOB_REFS).delete(f"{blob_id}.{task}")
    assert await blob_refs.sweep(bus) == 1
    with pytest.raises(NotFound):
        await bus.objects.info(blob)
    assert (await bus.objects.info(kept)).size == 1
