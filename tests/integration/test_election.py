"""Leadership on a real bus: one leader, quick hand-over, fencing, no acts after a cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import msgspec
import pytest

from mesh import coordination, messages, subjects
from mesh.config import LOCAL
from mesh.coordination import MeshEvent
from mesh.leader.election import Election, leading_fence
from mesh.membership.connections import connection_name, is_connected
from mesh.membership.registry import Registry
from mesh.messages import Heartbeat, NodeRecord

FAST = replace(LOCAL, heartbeat_interval_s=0.1, lease_ttl_s=3.0, lease_renew_s=0.4)


class Node:
    """The parts of a node that take part in an election."""

    def __init__(self, server, name: str, config=FAST) -> None:
        self.server, self.name, self.incarnation, self.config = server, name, f"{name}-1", config
        self.tasks: list[asyncio.Task] = []
        self.lost = self.asked = 0

    async def start(self) -> Node:
        self.bus = await self.server.connect(connection_name(self.name, self.incarnation))
        record = NodeRecord(id=self.name, name=self.name, incarnation=self.incarnation)
        await self.bus.kv(subjects.KV_NODES).put(self.name, messages.encode(record))
        self.registry = Registry(self.bus, self.name, self.config)
        await self.registry.start()

        async def connected(node: str, incarnation: str) -> bool:
            self.asked += 1
            return await is_connected(self.server.system, node, incarnation)

        self.election = Election(
            self.bus, self.name, self.incarnation, self.config, self.registry,
            is_connected=connected, on_lost=self._count_lost,
        )  # fmt: skip
        self.tasks = [
            asyncio.create_task(loop) for loop in (self.registry.run(), self.election.run(), self._heartbeat())
        ]
        return self

    def _count_lost(self) -> None:
        self.lost += 1

    async def _heartbeat(self) -> None:
        for seq in range(1_000_000):
            heartbeat = Heartbeat(node=self.name, incarnation=self.incarnation, seq=seq, interval_s=0.1)
            self.bus.send(subjects.heartbeat(self.name), messages.encode(heartbeat))
            await asyncio.sleep(0.1)

    async def stop(self, close: bool = False) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if close:
            await self.bus.close()


@pytest.fixture
async def start(bus_server) -> AsyncIterator[Callable[..., Awaitable[Node]]]:
    made: list[Node] = []

    async def start_node(name: str, config=FAST) -> Node:
        made.append(Node(bus_server, name, config))
        return await made[-1].start()

    yield start_node
    for node in made:
        await node.stop()


@pytest.fixture
async def nodes(start: Callable[..., Awaitable[Node]]) -> list[Node]:
    return [await start(name) for name in ("a", "b", "c")]


def leaders(nodes: list[Node]) -> list[Node]:
    return [node for node in nodes if node.election.is_leader]


async def test_exactly_one_is_elected_and_it_renews(nodes: list[Node], eventually: Callable) -> None:
    await eventually(lambda: leaders(nodes))
    (leader,) = leaders(nodes)
    fence, kv = leader.election.fence, leader.bus.kv(subjects.KV_LEASE)
    first = (await kv.get(subjects.LEASE_KEY)).revision
    assert await leading_fence(leader.bus) == fence
    await eventually(lambda: all(node.election.leader == leader.name for node in nodes))
    await eventually(lambda: leader.election._seen.revision >= first + 3)
    assert leaders(nodes) == [leader]
    assert leader.election.fence == fence == await leader.election.confirm() == await leading_fence(nodes[0].bus)
    assert [await node.election.confirm() for node in nodes] == [fence if node is leader else 0 for node in nodes]


async def test_a_holder_reads_the_lease_once_for_each_renewal(start, bus_server, eventually: Callable) -> None:
    """It also receives its own renewals, and does not read the lease for them."""
    node = await start("a")
    await eventually(lambda: node.election.is_leader)
    observed: list[str] = []
    listener = await bus_server.connect("listener")
    await listener.subscribe(f"$JS.API.STREAM.MSG.GET.KV_{subjects.KV_LEASE}", lambda _: observed.append("read"))
    await listener.subscribe(f"$KV.{subjects.KV_LEASE}.>", lambda _: observed.append("renewal"))
    await eventually(lambda: observed.count("renewal") >= 6)
    assert abs(observed.count("read") - observed.count("renewal")) <= 1


async def test_a_resignation_hands_over_at_once(start, eventually: Callable) -> None:
    config = replace(FAST, lease_ttl_s=60.0)
    nodes = [await start(name, config) for name in ("a", "b", "c")]
    await eventually(lambda: leaders(nodes))
    (old,) = leaders(nodes)
    fence = old.election.fence
    await old.election.resign()
    assert not old.election.is_leader and old.lost == 1
    rest = [node for node in nodes if node is not old]
    await eventually(lambda: leaders(rest), within_s=20.0)
    assert leaders(rest)[0].election.fence > fence
    assert await leading_fence(old.bus) == leaders(rest)[0].election.fence


async def test_a_crash_is_taken_over_long_before_the_ttl(start, eventually: Callable) -> None:
    config = replace(FAST, lease_ttl_s=60.0)
    nodes = [await start(name, config) for name in ("a", "b", "c")]
    await eventually(lambda: leaders(nodes))
    (old,) = leaders(nodes)
    fence, rest = old.election.fence, [node for node in nodes if node is not old]
    await eventually(lambda: all(node.registry.state_of(old.name) == "up" for node in rest))
    await old.stop(close=True)
    await eventually(lambda: leaders(rest), within_s=20.0)
    assert leaders(rest)[0].election.fence > fence


async def test_a_silent_leader_that_is_still_connected_keeps_its_lease(start, eventually: Callable) -> None:
    config = replace(FAST, lease_ttl_s=60.0)
    old = await start("a", config)
    await eventually(lambda: old.election.is_leader)
    other = await start("b", config)
    await old.stop()  # frozen: no heartbeats and no renewals, but its connection stays open
    await eventually(lambda: other.registry.state_of("a") == "gone")
    await eventually(lambda: other.asked >= 2)
    assert not other.election.is_leader and other.election.leader == "a"
    await old.bus.close()
    await eventually(lambda: other.election.is_leader, within_s=20.0)


async def test_a_lease_without_renewals_expires(start, eventually: Callable) -> None:
    config = replace(FAST, lease_ttl_s=1.0)
    old = await start("a", config)
    await eventually(lambda: old.election.is_leader)
    fence = old.election.fence
    other = await start("b", config)
    await old.stop()
    await eventually(lambda: other.election.is_leader, within_s=20.0)
    assert other.election.fence > fence
    assert old.election.fence == 0, "its own clock ends the term, without any loop"


async def test_a_leader_that_was_cut_off_does_not_act_until_it_has_read_the_lease(
    bus_server, start, eventually: Callable
) -> None:
    node = await start("a", replace(FAST, lease_ttl_s=60.0))
    await eventually(lambda: node.election.is_leader)
    fence = node.election.fence
    bus_server.kill()
    await eventually(lambda: not node.bus.connected)
    assert node.election.fence == 0
    await bus_server.start()
    await eventually(lambda: node.election.fence == fence, within_s=15.0)
    assert node.lost == 0, "no other node took the lease: the term goes on"


async def test_a_new_connection_alone_does_not_resume_a_term(bus_server, start, eventually: Callable) -> None:
    node = await start("a", replace(FAST, lease_ttl_s=60.0))
    await eventually(lambda: node.election.is_leader)
    fence = node.election.fence
    await node.stop()  # end its loops, so that only `confirm` reads the lease
    bus_server.kill()
    await eventually(lambda: not node.bus.connected)
    await bus_server.start()
    await eventually(lambda: node.bus.connected, within_s=15.0)
    assert node.election.fence == 0 and await node.election.confirm() == fence == node.election.fence


async def test_a_leader_that_was_overtaken_steps_down(start, eventually: Callable) -> None:
    node = await start("a")
    await eventually(lambda: node.election.is_leader)
    lease = messages.encode(coordination.Lease("z", "z-1", at=0.0))
    await node.bus.kv(subjects.KV_LEASE).put(subjects.LEASE_KEY, lease)
    assert await node.election.confirm() == 0
    await eventually(lambda: node.lost == 1)


async def test_terms_are_in_the_journal_with_rising_fences(nodes: list[Node], eventually: Callable) -> None:
    events: list[coordination.MeshEvent] = []
    await nodes[0].bus.subscribe(
        "mesh.event.>", lambda message: events.append(msgspec.msgpack.decode(message.data, type=MeshEvent))
    )
    await eventually(lambda: leaders(nodes))
    (old,) = leaders(nodes)
    await old.election.resign()
    rest = [node for node in nodes if node is not old]
    await eventually(lambda: leaders(rest) and len([event for event in events if "elected" in event.type]) >= 1)
    assert {"leader.lost", "leader.elected"} <= {event.type for event in events}
