"""The heartbeat digest on a real bus: a follower gets all heartbeats in one message, or each one without it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from mesh import messages, subjects
from mesh.bus.client import Bus, Message
from mesh.bus.revisions import ASK_AGAIN_S
from mesh.config import LOCAL
from mesh.membership import failure_detector
from mesh.membership.heartbeat_relay import digest_every_s
from mesh.membership.registry import Registry
from mesh.messages import Heartbeat, HeartbeatDigest, NodeRecord

FAST = replace(LOCAL, heartbeat_interval_s=0.1)


class Mesh:
    """A leader that publishes digests, a follower, and nodes that send heartbeats."""

    def __init__(self, bus: Bus, leader: Registry, follower: Registry) -> None:
        self.bus, self.leader, self.follower = bus, leader, follower
        self._speaking: dict[str, asyncio.Task[None]] = {}
        self._publishing: asyncio.Task[None] | None = None

    async def node(self, name: str) -> None:
        """Add a node that sends heartbeats until `silence`."""
        record = NodeRecord(id=name, name=name, incarnation="1")
        await self.bus.kv(subjects.KV_NODES).put(name, messages.encode(record))

        async def speak() -> None:
            for seq in range(1, 100_000):
                heartbeat = Heartbeat(node=name, incarnation="1", seq=seq, interval_s=0.1, running=3)
                self.bus.send(subjects.heartbeat(name), messages.encode(heartbeat))
                await asyncio.sleep(0.1)

        self._speaking[name] = asyncio.create_task(speak())

    def silence(self, name: str) -> None:
        """End the heartbeats of a node."""
        self._speaking.pop(name).cancel()

    async def lead(self) -> None:
        """The leader receives all heartbeats, and publishes digests from now on."""
        await self.leader.heartbeat_relay.lead(True)

        async def digest() -> None:
            while True:
                self.leader.heartbeat_relay.publish_digest("leader", 7, self.leader.judged())
                await asyncio.sleep(digest_every_s(FAST))

        self._publishing = asyncio.create_task(digest())

    def fall_silent(self) -> None:
        """End the digests."""
        assert self._publishing is not None
        self._publishing.cancel()

    def close(self) -> None:
        for task in (*self._speaking.values(), *filter(None, (self._publishing,))):
            task.cancel()


@pytest.fixture
async def mesh(bus_server) -> AsyncIterator[Mesh]:
    registries = [Registry(await bus_server.connect(f"{name}/1"), name, FAST) for name in ("leader", "follower")]
    for registry in registries:
        await registry.start()
    running = [asyncio.create_task(registry.run()) for registry in registries]
    made = Mesh(await bus_server.connect("speaker"), *registries)
    for _ in range(9):  # a leader may have a fence up to 9
        await made.bus.kv(subjects.KV_LEASE).put(subjects.LEASE_KEY, b"x")
    for name in ("leader", "follower", "a"):
        await made.node(name)
    yield made
    made.close()
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for registry in registries:
        await registry.close()


def listening(registry: Registry) -> bool:
    return registry.heartbeat_relay._all is not None


async def test_with_a_digest_a_node_stops_receiving_each_heartbeat_and_knows_as_much(
    mesh: Mesh, eventually: Callable
) -> None:
    assert listening(mesh.follower), "without a leader every node receives all heartbeats"
    await mesh.lead()
    await eventually(lambda: not listening(mesh.follower))
    assert listening(mesh.leader)
    changes: list[tuple[str, str, str]] = []
    mesh.follower.listen(lambda *change: changes.append(change))
    await mesh.node("b")
    await eventually(lambda: any(member.record.id == "b" and member.heartbeat for member in mesh.follower.members()))
    (seen,) = [node_view for node_view in mesh.follower.view() if node_view.id == "b"]
    assert (seen.state, seen.running) == ("up", 3)
    await asyncio.sleep(FAST.heartbeat_interval_s * 12)
    assert not listening(mesh.follower)
    assert changes == [("b", "", "up")], "no node is suspect while the digest arrives"
    mesh.silence("b")
    await eventually(lambda: mesh.follower.state_of("b") == "gone")


async def test_without_a_digest_a_node_receives_all_heartbeats_and_only_dead_nodes_are_gone(
    mesh: Mesh, eventually: Callable
) -> None:
    await mesh.lead()
    await eventually(lambda: not listening(mesh.follower) and mesh.follower.state_of("a") == "up")
    changes: list[tuple[str, str, str]] = []
    mesh.follower.listen(lambda *change: changes.append(change))
    mesh.fall_silent()
    mesh.silence("leader")
    await eventually(lambda: mesh.follower.is_gone("leader", "1"))
    assert listening(mesh.follower)
    assert {node for node, _, _ in changes} <= {"leader", "follower"}, "no other node is suspect because of it"
    mesh.silence("a")
    await eventually(lambda: mesh.follower.state_of("a") == "gone")
    assert mesh.follower.state_of("follower") == "up"


async def test_a_digest_of_an_earlier_leader_is_ignored(mesh: Mesh, eventually: Callable) -> None:
    await mesh.lead()
    await eventually(lambda: not listening(mesh.follower))
    ghost = Heartbeat(node="ghost", incarnation="1", seq=1)
    mesh.bus.send(
        subjects.HEARTBEAT_DIGEST,
        messages.encode(HeartbeatDigest(fence=6, leader="old", heartbeats=(messages.encode(ghost),))),
    )
    await mesh.node("b")
    await eventually(lambda: mesh.follower.state_of("b") == "up")
    assert mesh.follower.state_of("ghost") == "" and mesh.follower.heartbeat_relay.leader == "leader"


async def test_a_forged_digest_silences_the_leader_for_a_moment_only(mesh: Mesh, eventually: Callable) -> None:
    """Its fence was the highest for ever: no digest of the leader was believed any more."""
    await mesh.lead()
    await eventually(lambda: not listening(mesh.follower))
    forged = HeartbeatDigest(fence=9, leader="nobody", heartbeats=())
    mesh.bus.send(subjects.HEARTBEAT_DIGEST, messages.encode(forged))
    await eventually(lambda: mesh.follower.heartbeat_relay.leader == "nobody")
    await eventually(lambda: mesh.follower.heartbeat_relay.leader == "leader" and not listening(mesh.follower))


async def test_a_digest_with_a_fence_that_no_leader_can_have_is_ignored(mesh: Mesh, eventually: Callable) -> None:
    await mesh.lead()
    await eventually(lambda: not listening(mesh.follower))
    ghost = messages.encode(Heartbeat(node="ghost", incarnation="1", seq=1))
    for _ in range(2):
        forged = HeartbeatDigest(fence=1 << 40, leader="nobody", heartbeats=(ghost,))
        mesh.bus.send(subjects.HEARTBEAT_DIGEST, messages.encode(forged))
        await asyncio.sleep(ASK_AGAIN_S * 1.5)  # the follower has asked the bus by then
    assert mesh.follower.heartbeat_relay.leader == "leader" and not mesh.follower.state_of("ghost")


async def test_no_digest_is_published_without_followers(mesh: Mesh, eventually: Callable) -> None:
    """A single node would send four messages a second to itself."""
    digests: list[Message] = []
    await mesh.bus.subscribe(subjects.HEARTBEAT_DIGEST, digests.append)
    await mesh.lead()
    await eventually(lambda: digests and not listening(mesh.follower))
    for name in ("follower", "a"):
        mesh.silence(name)
    await eventually(lambda: {mesh.leader.judged().get(name) for name in ("follower", "a")} == {"gone"})
    await mesh.bus.flush()
    digests.clear()
    await asyncio.sleep(digest_every_s(FAST) * 10)
    await mesh.bus.flush()
    assert not digests
    await mesh.node("b")
    await eventually(lambda: digests and any(node_view.id == "b" for node_view in mesh.follower.view()))


async def test_a_death_notice_takes_effect_at_once_without_a_digest(mesh: Mesh, eventually: Callable) -> None:
    await mesh.lead()
    await eventually(lambda: not listening(mesh.follower) and mesh.follower.is_alive("a", "1"))
    mesh.silence("a")
    mesh.bus.send(
        subjects.death_notice("a"), messages.encode(Heartbeat(node="a", incarnation="1", seq=0, state="gone"))
    )
    await mesh.bus.flush()
    await eventually(lambda: mesh.follower.is_gone("a", "1"))
    assert failure_detector.is_disconnected(mesh.follower.seen()["a"], FAST, time.monotonic()), (
        "because of the notice and not of its silence"
    )


async def test_only_the_leader_and_its_standby_nodes_receive_held_sets(mesh: Mesh, eventually: Callable) -> None:
    await eventually(lambda: mesh.follower.heartbeat_relay._held is not None)
    for name in ("b", "c", "d"):  # before "follower" by id: the three standby nodes are a, b and c
        await mesh.node(name)
    await mesh.lead()
    await eventually(lambda: mesh.follower.heartbeat_relay._held is None)
    assert mesh.leader.heartbeat_relay._held is not None
    for name in ("a", "b", "c", "d"):
        mesh.silence(name)
    await eventually(lambda: mesh.follower.heartbeat_relay._held is not None)
