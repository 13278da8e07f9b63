"""Processes that hold work are killed and frozen; the leader gives their work to others, each piece once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from mesh import coordination, messages, subjects
from mesh.bus.client import Bus
from mesh.bus.streams import declare_lane
from mesh.config import LOCAL
from mesh.coordination import MeshEvent, Plan
from mesh.kinds.base import Resources
from mesh.leader.election import Election
from mesh.leader.leader import Leader
from mesh.membership.connections import connection_name, is_connected
from mesh.membership.registry import Registry
from mesh.messages import Heartbeat, Held, HeldSet, NodeRecord

ROOT = Path(__file__).parents[2]
LANE = ("echo", "any", "normal")
#: Seconds at most; `tests/faults/scene.py` says of what these are multiples. All are less than `LOCAL.ack_wait_s`.
AFTER_A_KILL_S, AFTER_A_FREEZE_S, AFTER_THE_LEADER_S = 10.0, 12.0, 12.0


class LeaderNode:
    """A node that is elected and reclaims; it pulls work itself, after everybody else."""

    def __init__(self, server, bus: Bus, name: str = "boss") -> None:
        self.bus, self.name, self.got, self.events = bus, name, [], []
        self.held: list[Held] = []
        self.registry = Registry(bus, name, LOCAL)

        async def connected(node: str, incarnation: str) -> bool:
            return await is_connected(server.system, node, incarnation)

        self.election = Election(bus, name, "1", LOCAL, self.registry, is_connected=connected)
        self.leader = Leader(
            bus, name, self.election, self.registry, LOCAL, {"echo": Resources()}, open_system=server.system
        )

    async def start(self) -> LeaderNode:
        record = NodeRecord(id=self.name, name=self.name, incarnation="1")
        await self.bus.kv(subjects.KV_NODES).put(self.name, messages.encode(record))
        await self.registry.start()
        self.box = self.bus.new_inbox()
        await self.bus.subscribe(self.box, self._on_work)
        await self.bus.subscribe(
            "mesh.event.>", lambda message: self.events.append(msgspec.msgpack.decode(message.data, type=MeshEvent))
        )
        loops = (self.registry.run(), self.election.run(), self.leader.run(), self._heartbeat())
        self.tasks = [asyncio.create_task(loop) for loop in loops]
        return self

    def reaps(self) -> bool:
        return self.election.is_leader and self.leader._reclaimer._connections is not None

    def _on_work(self, message) -> None:
        if message.reply:
            fields = message.reply.split(".")
            self.held.append(Held(int(fields[-4]), int(fields[-5]), message.reply, "t"))
            self.got.append((time.monotonic(), message.subject.split(".")[-1], message.reply.split(".")[-5]))
            if len(self.got) > 1000:
                raise AssertionError("reclaimed again and again")

    async def _heartbeat(self) -> None:
        for seq in range(1_000_000):
            heartbeat = Heartbeat(node=self.name, incarnation="1", seq=seq)
            self.bus.send(subjects.heartbeat(self.name), messages.encode(heartbeat))
            await asyncio.sleep(0.5)

    def pull(self, batch: int) -> None:
        body = {"batch": batch, "expires": 60_000_000_000, "group": "all", "priority": 5}
        lane = subjects.lane_durable(*LANE)
        self.bus.send(f"$JS.API.CONSUMER.MSG.NEXT.WORK.{lane}", json.dumps(body).encode(), self.box)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
async def boss(bus_server, eventually: Callable) -> AsyncIterator[LeaderNode]:
    node = LeaderNode(bus_server, await bus_server.connect(connection_name("boss", "1")))
    await declare_lane(node.bus, *LANE)
    await node.start()
    await eventually(node.reaps)
    yield node
    await node.stop()


@pytest.fixture
async def hold(bus_server, boss: LeaderNode, eventually: Callable) -> AsyncIterator[Callable]:
    """`pid = await hold(node, batch, count)`: a process that pulls `batch` and holds `count` tasks."""
    made: list[asyncio.subprocess.Process] = []

    async def start(node: str, batch: int, count: int) -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("holder.py")), bus_server.url, node, str(batch),
            stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        made.append(process)
        async with asyncio.timeout(20):
            while await process.stdout.readline() != b"pulls\n":
                pass
            for number in range(count):
                await boss.bus.store(subjects.lane_subject(*LANE, f"{node}-{number}"), b"x")
            while count and await process.stdout.readline() != f"holds {count}\n".encode():
                pass
        await eventually(lambda: len(boss.registry.held_by(node)) == count)
        await eventually(lambda: boss.registry.state_of(node) == "up")
        return process.pid

    yield start
    for process in made:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_work_of_a_killed_process_is_elsewhere_before_its_silence_tells(
    boss: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    pid = await hold("a", 20, 20)
    said: list[tuple[str, int]] = []

    def hear(message) -> None:
        said.append((msgspec.msgpack.decode(message.data, type=Heartbeat).state, len(boss.got)))

    await boss.bus.subscribe(subjects.death_notice("a"), hear)
    boss.pull(100)
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    await eventually(lambda: len(boss.got) == 20, within_s=30)
    took_s = max(at for at, _, _ in boss.got) - killed_at
    assert took_s < AFTER_A_KILL_S
    await eventually(lambda: "node.gone" in {event.type for event in boss.events})
    (gone,) = [event for event in boss.events if event.type == "node.gone"]
    assert gone.detail["why"] == "its connection closed"
    assert {delivered for _, _, delivered in boss.got} == {"2"}
    assert len({task for _, task, _ in boss.got}) == 20
    await eventually(lambda: "work.returned" in {event.type for event in boss.events})
    assert boss.registry.held_by("a") == (), "the next leader must not give it back again"
    assert ("gone", 0) in said, (
        "all nodes get the death notice before anything is reclaimed, or they take the task for running"
    )


async def test_work_of_a_frozen_process_is_given_to_others(
    boss: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    pid = await hold("a", 50, 10)
    boss.pull(100)
    os.kill(pid, signal.SIGSTOP)
    frozen_at = time.monotonic()
    await eventually(lambda: len(boss.got) == 10, within_s=30)
    took_s = max(at for at, _, _ in boss.got) - frozen_at
    assert took_s < AFTER_A_FREEZE_S
    await eventually(lambda: {"node.gone", "work.returned"} <= {event.type for event in boss.events})
    (gone,) = [event for event in boss.events if event.type == "node.gone"]
    assert gone.detail["why"] == "no heartbeat came"
    # its open pull of rank 0 is gone with its connection: new work comes to us as well
    await boss.bus.store(subjects.lane_subject(*LANE, "new-1"), b"x")
    await eventually(lambda: boss.got[-1][1] == "new-1", within_s=2)
    os.kill(pid, signal.SIGCONT)
    await eventually(lambda: boss.registry.state_of("a") == "up")
    counts: dict[str, int] = {}
    for _, task, _ in boss.got:
        counts[task] = counts.get(task, 0) + 1
    assert set(counts.values()) == {1}, "woken, it is alive again, and nothing was reclaimed twice"


async def test_what_a_dead_leader_held_is_given_to_others_by_the_next(
    bus_server, boss: LeaderNode, eventually: Callable
) -> None:
    successor = LeaderNode(bus_server, await bus_server.connect(connection_name("successor", "1")), "successor")
    await successor.start()
    try:
        boss.pull(5)
        for number in range(5):
            await boss.bus.store(subjects.lane_subject(*LANE, f"m-{number}"), b"x")
        await eventually(lambda: len(boss.held) == 5)
        announced = HeldSet(node="boss", incarnation="1", held=tuple(boss.held))
        boss.bus.send(subjects.held("boss"), messages.encode(announced))
        await eventually(lambda: len(successor.registry.held_by("boss")) == 5)
        await eventually(lambda: successor.election.leader == "boss")
        fence = boss.election.fence
        successor.pull(10)
        await boss.stop()
        await boss.bus.close()
        died_at = time.monotonic()
        await eventually(lambda: len(successor.got) == 5, within_s=30)
        took_s = max(at for at, _, _ in successor.got) - died_at
        assert took_s < AFTER_THE_LEADER_S
        assert successor.election.fence > fence
        await eventually(lambda: "work.returned" in {event.type for event in successor.events})
    finally:
        await successor.stop()


async def test_a_connection_cut_and_back_within_the_grace_costs_nothing(
    bus_server, boss: LeaderNode, eventually: Callable
) -> None:
    blip = await bus_server.connect(connection_name("b", "1"))
    record = NodeRecord(id="b", name="b", incarnation="1")
    await blip.kv(subjects.KV_NODES).put("b", messages.encode(record))
    held = Held(999, 1, "reply.b", "t-1")
    given_back: list[bytes] = []
    await boss.bus.subscribe("reply.b", lambda message: given_back.append(message.data))
    blip.send(subjects.heartbeat("b"), messages.encode(Heartbeat(node="b", incarnation="1", seq=1)))
    blip.send(subjects.held("b"), messages.encode(HeldSet("b", "1", (held,))))
    await eventually(lambda: boss.registry.held_by("b") and boss.registry.state_of("b") == "up")
    changes: list[tuple[str, str, str]] = []
    boss.registry.listen(lambda *change: changes.append(change))
    system = await bus_server.system()
    kick = json.dumps({"cid": blip.client_id}).encode()
    await system.request(f"$SYS.REQ.SERVER.{blip.server_id}.KICK", kick)
    await system.close()
    await eventually(lambda: blip.epoch == 2 and blip.connected)
    until = time.monotonic() + 3 * LOCAL.disconnect_grace_s
    while time.monotonic() < until:
        blip.send(subjects.heartbeat("b"), messages.encode(Heartbeat(node="b", incarnation="1", seq=blip.epoch + 1)))
        await asyncio.sleep(0.1)
    assert ("b", "suspect", "gone") not in changes and ("b", "up", "gone") not in changes
    assert given_back == []


async def test_a_leader_that_was_overtaken_reclaims_nothing(
    boss: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    pid = await hold("a", 5, 5)
    boss.pull(100)
    lease = messages.encode(coordination.Lease("z", "z-1", at=0.0))
    await boss.bus.kv(subjects.KV_LEASE).put(subjects.LEASE_KEY, lease)
    await eventually(lambda: not boss.election.is_leader)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: boss.registry.state_of("a") == "gone")
    assert boss.got == []


async def test_a_leader_that_does_not_know_yet_that_it_was_overtaken_reclaims_nothing(
    boss: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    """Its loop has not looked: the lease is read again before anything is reclaimed."""
    pid = await hold("a", 5, 5)
    boss.pull(100)
    boss.tasks[1].cancel()
    await asyncio.wait([boss.tasks[1]])
    lease = messages.encode(coordination.Lease("z", "z-1", at=0.0))
    await boss.bus.kv(subjects.KV_LEASE).put(subjects.LEASE_KEY, lease)
    assert boss.election.is_leader
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not boss.election.is_leader)
    assert boss.registry.state_of("a") == "gone" and boss.got == []


async def test_work_of_a_node_that_was_killed_and_is_back_at_once_is_reclaimed(
    boss: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    """Before its death was noticed; the new incarnation knows nothing of the old one's work. Another node is dead."""
    pids = [await hold(node, 5, 5) for node in ("a", "b")]
    boss.pull(100)
    os.kill(pids[1], signal.SIGKILL)
    await eventually(lambda: boss.registry.state_of("b") == "gone" and len(boss.got) == 5)
    os.kill(pids[0], signal.SIGKILL)
    record = NodeRecord(id="a", name="a", incarnation="2")
    await boss.bus.kv(subjects.KV_NODES).put("a", messages.encode(record))
    await boss.registry.refresh()
    assert boss.registry.is_present("a", "2")
    boss.bus.send(
        subjects.heartbeat("a"), messages.encode(Heartbeat(node="a", incarnation="2", seq=1, interval_s=60.0))
    )
    await eventually(lambda: len(boss.got) == 10)
    assert len({task for _, task, _ in boss.got}) == 10 and boss.registry.state_of("a") == "up"
    await eventually(lambda: boss.registry.announcements.former_holders() == {})
    # What was reclaimed before its holder was replaced is over and done with as well.
    record = NodeRecord(id="b", name="b", incarnation="2")
    await boss.bus.kv(subjects.KV_NODES).put("b", messages.encode(record))
    await boss.registry.refresh()
    await eventually(lambda: boss.registry.announcements.former_holders() == {})
    assert len(boss.got) == 10


async def test_the_leader_writes_a_plan_under_its_fence_and_removes_who_left(
    bus_server, boss: LeaderNode, eventually: Callable
) -> None:
    kinds = messages.Capabilities(kinds=(messages.KindInfo("echo", True),))
    nodes = boss.bus.kv(subjects.KV_NODES)
    for node in ("boss", "c"):
        record = NodeRecord(id=node, name=node, incarnation="1", capabilities=kinds)
        await nodes.put(node, messages.encode(record))
    plans = boss.bus.kv(subjects.KV_PLAN)

    async def plan() -> coordination.Plan | None:
        entry = await plans.get(subjects.PLAN_KEY)
        return msgspec.msgpack.decode(entry.value, type=Plan) if entry else None

    async with asyncio.timeout(10):
        while (found := await plan()) is None or set(found.ranks.get("echo", {})) != {"boss", "c"}:
            await asyncio.sleep(0.05)
    assert found.fence == boss.election.fence and found.ranks["echo"]["boss"] == 0
    left = NodeRecord(id="c", name="c", incarnation="1", state="left")
    await nodes.put("c", messages.encode(left))
    await eventually(lambda: boss.registry.state_of("c") == "")
    await eventually(lambda: {"node.left", "node.forgotten"} <= {event.type for event in boss.events})
