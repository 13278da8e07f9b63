"""Reclaims the deliveries of dead nodes: the loop beside `mesh/leader/reclaim.py`, run by the leader only.

The order matters. First the lease is read again. Then all nodes get a death notice (otherwise they would take the
node's tasks for running), the node's connections are closed by force, and its deliveries are NAKed. Last, it is
announced to hold nothing, so that the next leader does not NAK them again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh import messages, subjects
from mesh.bus.replies import consumer_of_ack
from mesh.errors import QueztlError
from mesh.lanes import Lane
from mesh.leader import journal, reclaim
from mesh.leader.reclaim import DeadNode, Kick, Reclaim
from mesh.membership.connections import Connections, OpenSystem
from mesh.membership.member import ALIVE, GONE
from mesh.messages import Heartbeat, HeldSet
from mesh.supervision import wait_until_set

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.leader.election import Election
    from mesh.membership.registry import Registry

log = logging.getLogger(__name__)

#: The longest time between two checks, seconds: an announcement may arrive after the death was detected.
LOOK_EVERY_S = 0.5


class Reclaimer:
    """`run(fence)` for one term as leader."""

    def __init__(
        self,
        bus: Bus,
        me: str,
        election: Election,
        registry: Registry,
        open_system: OpenSystem | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `open_system` deaths are detected only by missing heartbeats, and no connection is closed."""
        self._bus, self._me, self._election, self._registry = bus, me, election, registry
        self._open_system, self._clock = open_system, clock
        self._wake = asyncio.Event()
        self._connections: Connections | None = None

    async def run(self, fence: int) -> None:
        """Watch and reclaim until cancelled, or until the term is over."""
        memory = reclaim.Memory()
        unlisten = self._registry.listen(lambda *_: self._wake.set())
        try:
            while self._election.fence in (fence, 0):
                self._wake.clear()
                await self._open()
                memory = await self._reclaim(fence, memory)
                await wait_until_set(self._wake, LOOK_EVERY_S)
        finally:
            unlisten()
            if self._connections is not None:
                await self._connections.close()
                self._connections = None

    async def _open(self) -> None:
        if self._connections is not None or self._open_system is None:
            return
        connections = Connections(self._open_system, self._registry)
        try:
            await connections.open()
            self._connections = connections
        except QueztlError as error:
            log.warning(
                "no system connection, so deaths are detected by missing heartbeats only: %s",
                error.message,
            )
        finally:
            if self._connections is None:
                await connections.close()

    async def _reclaim(self, fence: int, memory: reclaim.Memory) -> reclaim.Memory:
        replaced = list(self._registry.announcements.former_holders())
        dead, elsewhere = self._observe()
        # Call the listeners first: the death notice and the closed connections change the cause that they would report.
        self._registry.judge()
        actions, after = reclaim.plan_reclaim(dead, elsewhere, memory, self._clock())
        try:
            if actions:
                if await self._election.confirm() != fence:
                    return memory
                await self._act(dead, actions, fence)
        except QueztlError as error:
            log.warning("could not reclaim the deliveries of dead nodes: %s", error.message)
            return memory
        if self._election.fence == fence:
            for replaced_incarnation in replaced:
                # Its deliveries were reclaimed (it may have died before it was replaced), or a living node holds them.
                self._registry.announcements.forget_former(*replaced_incarnation)
        return after

    def _observe(self) -> tuple[list[DeadNode], dict[int, int]]:
        """(the dead nodes, stream sequence -> the highest delivery count that a living node has announced)"""
        registry = self._registry
        elsewhere: dict[int, int] = {}
        states = {member.record.id: member.state for member in registry.members()}
        dead = [
            DeadNode(node, peer.incarnation, registry.held_by(node), peer.connections)
            for node, peer in registry.seen().items()
            if states.get(node) == GONE and node != self._me
        ]
        dead += [DeadNode(*former, held) for former, held in registry.announcements.former_holders().items()]
        if any(node.held for node in dead):
            for node, state in states.items():
                for held in registry.held_by(node) if state in ALIVE else ():
                    elsewhere[held.stream_seq] = max(elsewhere.get(held.stream_seq, 0), held.delivered)
        return dead, elsewhere

    async def _act(self, dead: list[DeadNode], actions: list[Kick | Reclaim], fence: int) -> None:
        for node in dead:
            self._publish_death_notice(node)
        reclaimed: dict[tuple[str, str], int] = {}
        lanes: set[Lane] = set()
        for action in actions:
            if isinstance(action, Kick):
                await self._kick(action)
            elif self._election.fence == fence:
                self._bus.nak(action.reply)
                holder = (action.node, action.incarnation)
                reclaimed[holder] = reclaimed.get(holder, 0) + 1
                if (lane := subjects.split_durable(consumer_of_ack(action.reply))) is not None:
                    lanes.add(lane)
        for lane in lanes:
            self._bus.send(subjects.wake(*lane), b"")
        for (node_id, incarnation), count in reclaimed.items():
            log.info("reclaimed %d deliveries that %s held when it died", count, node_id)
            if self._registry.is_present(node_id, incarnation):
                nothing = HeldSet(node=node_id, incarnation=incarnation, held=())
                self._bus.send(subjects.held(node_id), messages.encode(nothing))
            await journal.emit(self._bus, journal.WORK_RETURNED, {"deliveries": count}, node=node_id, fence=fence)

    def _publish_death_notice(self, dead: DeadNode) -> None:
        if self._registry.is_present(dead.node, dead.incarnation):
            notice = Heartbeat(node=dead.node, incarnation=dead.incarnation, seq=0, state=GONE)
            self._bus.send(subjects.death_notice(dead.node), messages.encode(notice))

    async def _kick(self, kick: Kick) -> None:
        if self._connections is None:
            return
        try:
            await self._connections.kick(kick.server_id, kick.client_id)
        except QueztlError as error:
            log.warning("could not close a connection of dead node %s: %s", kick.node, error.message)
