"""Processes that hold work are killed and frozen; the leader reclaims their work, each task once."""

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
#: Time limits, seconds; `tests/faults/scene.py` says what they are multiples of. All are below `LOCAL.ack_wait_s`.
AFTER_A_KILL_S, AFTER_A_FREEZE_S, AFTER_THE_LEADER_S = 10.0, 12.0, 12.0


class LeaderNode:
    """A node that is elected and reclaims; it also pulls work, with a lower rank than others."""

    def __init__(self, server, bus: Bus, name: str = "leader") -> None:
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

    def reclaims(self) -> bool:
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
async def leader_node(bus_server, eventually: Callable) -> AsyncIterator[LeaderNode]:
    node = LeaderNode(bus_server, await bus_server.connect(connection_name("leader", "1")))
    await declare_lane(node.bus, *LANE)
    await node.start()
    await eventually(node.reclaims)
    yield node
    await node.stop()


@pytest.fixture
async def hold(bus_server, leader_node: LeaderNode, eventually: Callable) -> AsyncIterator[Callable]:
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
                await leader_node.bus.store(subjects.lane_subject(*LANE, f"{node}-{number}"), b"x")
            while count and await process.stdout.readline() != f"holds {count}\n".encode():
                pass
        await eventually(lambda: len(leader_node.registry.held_by(node)) == count)
        await eventually(lambda: leader_node.registry.state_of(node) == "up")
        return process.pid

    yield start
    for process in made:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_work_of_a_killed_process_is_reclaimed_before_its_silence_is_noticed(
    leader_node: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    pid = await hold("a", 20, 20)
    notices: list[tuple[str, int]] = []

    def on_notice(message) -> None:
        notices.append((msgspec.msgpack.decode(message.data, type=Heartbeat).state, len(leader_node.got)))

    await leader_node.bus.subscribe(subjects.death_notice("a"), on_notice)
    leader_node.pull(100)
    # Right after a heartbeat: on a busy machine its silence may have begun long before.
    heartbeat = asyncio.Event()
    await leader_node.bus.subscribe(subjects.heartbeat("a"), lambda _: heartbeat.set())
    await heartbeat.wait()
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    await eventually(lambda: len(leader_node.got) == 20, within_s=30)
    took_s = max(at for at, _, _ in leader_node.got) - killed_at
    assert took_s < AFTER_A_KILL_S
    await eventually(lambda: "node.gone" in {event.type for event in leader_node.events})
    (gone,) = [event for event in leader_node.events if event.type == "node.gone"]
    assert gone.detail["why"] == "its connection closed"
    assert {delivered for _, _, delivered in leader_node.got} == {"2"}
    assert len({task for _, task, _ in leader_node.got}) == 20
    await eventually(lambda: "work.returned" in {event.type for event in leader_node.events})
    assert leader_node.registry.held_by("a") == (), "the next leader must not reclaim it again"
    assert ("gone", 0) in notices, (
        "all nodes get the death notice before anything is reclaimed, or they take the task for running"
    )


async def test_work_of_a_frozen_process_is_reclaimed(
    leader_node: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    pid = await hold("a", 50, 10)
    leader_node.pull(100)
    os.kill(pid, signal.SIGSTOP)
    frozen_at = time.monotonic()
    await eventually(lambda: len(leader_node.got) == 10, within_s=30)
    took_s = max(at for at, _, _ in leader_node.got) - frozen_at
    assert took_s < AFTER_A_FREEZE_S
    await eventually(lambda: {"node.gone", "work.returned"} <= {event.type for event in leader_node.events})
    (gone,) = [event for event in leader_node.events if event.type == "node.gone"]
    assert gone.detail["why"] == "no heartbeat came"
    # its open pull of rank 0 is gone with its connection, so new work comes to the leader
    await leader_node.bus.store(subjects.lane_subject(*LANE, "new-1"), b"x")
    await eventually(lambda: leader_node.got[-1][1] == "new-1", within_s=2)
    os.kill(pid, signal.SIGCONT)
    await eventually(lambda: leader_node.registry.state_of("a") == "up")
    counts: dict[str, int] = {}
    for _, task, _ in leader_node.got:
        counts[task] = counts.get(task, 0) + 1
    assert set(counts.values()) == {1}, "after it thaws it is up again, and nothing was reclaimed twice"


async def test_work_of_a_dead_leader_is_reclaimed_by_its_successor(
    bus_server, leader_node: LeaderNode, eventually: Callable
) -> None:
    successor = LeaderNode(bus_server, await bus_server.connect(connection_name("successor", "1")), "successor")
    await successor.start()
    try:
        leader_node.pull(5)
        for number in range(5):
            await leader_node.bus.store(subjects.lane_subject(*LANE, f"m-{number}"), b"x")
        await eventually(lambda: len(leader_node.held) == 5)
        announced = HeldSet(node="leader", incarnation="1", held=tuple(leader_node.held))
        leader_node.bus.send(subjects.held("leader"), messages.encode(announced))
        await eventually(lambda: len(successor.registry.held_by("leader")) == 5)
        await eventually(lambda: successor.election.leader == "leader")
        fence = leader_node.election.fence
        successor.pull(10)
        await leader_node.stop()
        await leader_node.bus.close()
        died_at = time.monotonic()
        await eventually(lambda: len(successor.got) == 5, within_s=30)
        took_s = max(at for at, _, _ in successor.got) - died_at
        assert took_s < AFTER_THE_LEADER_S
        assert successor.election.fence > fence
        await eventually(lambda: "work.returned" in {event.type for event in successor.events})
    finally:
        await successor.stop()


async def test_a_reconnect_within_the_grace_reclaims_nothing(
    bus_server, leader_node: LeaderNode, eventually: Callable
) -> None:
    blip = await bus_server.connect(connection_name("b", "1"))
    record = NodeRecord(id="b", name="b", incarnation="1")
    await blip.kv(subjects.KV_NODES).put("b", messages.encode(record))
    held = Held(999, 1, "reply.b", "t-1")
    given_back: list[bytes] = []
    await leader_node.bus.subscribe("reply.b", lambda message: given_back.append(message.data))
    blip.send(subjects.heartbeat("b"), messages.encode(Heartbeat(node="b", incarnation="1", seq=1)))
    blip.send(subjects.held("b"), messages.encode(HeldSet("b", "1", (held,))))
    await eventually(lambda: leader_node.registry.held_by("b") and leader_node.registry.state_of("b") == "up")
    changes: list[tuple[str, str, str]] = []
    leader_node.registry.listen(lambda *change: changes.append(change))
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
    leader_node: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    pid = await hold("a", 5, 5)
    leader_node.pull(100)
    lease = messages.encode(coordination.Lease("z", "z-1", at=0.0))
    await leader_node.bus.kv(subjects.KV_LEASE).put(subjects.LEASE_KEY, lease)
    await eventually(lambda: not leader_node.election.is_leader)
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: leader_node.registry.state_of("a") == "gone")
    assert leader_node.got == []


async def test_a_leader_that_has_not_noticed_its_successor_reclaims_nothing(
    leader_node: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    """Its election loop is stopped: the lease is read again before anything is reclaimed."""
    pid = await hold("a", 5, 5)
    leader_node.pull(100)
    leader_node.tasks[1].cancel()
    await asyncio.wait([leader_node.tasks[1]])
    lease = messages.encode(coordination.Lease("z", "z-1", at=0.0))
    await leader_node.bus.kv(subjects.KV_LEASE).put(subjects.LEASE_KEY, lease)
    assert leader_node.election.is_leader
    os.kill(pid, signal.SIGKILL)
    await eventually(lambda: not leader_node.election.is_leader)
    assert leader_node.registry.state_of("a") == "gone" and leader_node.got == []


async def test_work_of_a_killed_node_that_restarts_at_once_is_reclaimed(
    leader_node: LeaderNode, hold: Callable[..., Awaitable[int]], eventually: Callable
) -> None:
    """It restarts before its death is noticed, and does not know the old work. Another node is dead."""
    pids = [await hold(node, 5, 5) for node in ("a", "b")]
    leader_node.pull(100)
    os.kill(pids[1], signal.SIGKILL)
    await eventually(lambda: leader_node.registry.state_of("b") == "gone" and len(leader_node.got) == 5)
    os.kill(pids[0], signal.SIGKILL)
    record = NodeRecord(id="a", name="a", incarnation="2")
    await leader_node.bus.kv(subjects.KV_NODES).put("a", messages.encode(record))
    await leader_node.registry.refresh()
    assert leader_node.registry.is_present("a", "2")
    leader_node.bus.send(
        subjects.heartbeat("a"), messages.encode(Heartbeat(node="a", incarnation="2", seq=1, interval_s=60.0))
    )
    await eventually(lambda: len(leader_node.got) == 10)
    assert len({task for _, task, _ in leader_node.got}) == 10 and leader_node.registry.state_of("a") == "up"
    await eventually(lambda: leader_node.registry.announcements.former_holders() == {})
    # Work that was reclaimed before its holder was replaced is settled as well.
    record = NodeRecord(id="b", name="b", incarnation="2")
    await leader_node.bus.kv(subjects.KV_NODES).put("b", messages.encode(record))
    await leader_node.registry.refresh()
    await eventually(lambda: leader_node.registry.announcements.former_holders() == {})
    assert len(leader_node.got) == 10


async def test_the_leader_writes_a_plan_with_its_fence_and_removes_nodes_that_left(
    bus_server, leader_node: LeaderNode, eventually: Callable
) -> None:
    kinds = messages.Capabilities(kinds=(messages.KindInfo("echo", True),))
    nodes = leader_node.bus.kv(subjects.KV_NODES)
    for node in ("leader", "c"):
        record = NodeRecord(id=node, name=node, incarnation="1", capabilities=kinds)
        await nodes.put(node, messages.encode(record))
    plans = leader_node.bus.kv(subjects.KV_PLAN)

    async def plan() -> coordination.Plan | None:
        entry = await plans.get(subjects.PLAN_KEY)
        return msgspec.msgpack.decode(entry.value, type=Plan) if entry else None

    async with asyncio.timeout(10):
        while (found := await plan()) is None or set(found.ranks.get("echo", {})) != {"leader", "c"}:
            await asyncio.sleep(0.05)
    assert found.fence == leader_node.election.fence and found.ranks["echo"]["leader"] == 0
    left = NodeRecord(id="c", name="c", incarnation="1", state="left")
    await nodes.put("c", messages.encode(left))
    await eventually(lambda: leader_node.registry.state_of("c") == "")
    await eventually(lambda: {"node.left", "node.forgotten"} <= {event.type for event in leader_node.events})
