"""Gives back what dead nodes held: the loop beside `mesh/leader/reclaim.py`, run by the master only.

Everybody is told first that the node is gone (or its tasks would be taken for running still), then its
connections are closed by force, then its deliveries are returned in its name, then it is said to hold nothing,
so that the next master does not return them again. Before anything is done the lease is read again.
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
from mesh.leader.reclaim import Dead, GiveBack, Kick
from mesh.membership.connections import Connections, OpenSystem
from mesh.membership.member import ALIVE, GONE
from mesh.messages import Heartbeat, HeldSet
from mesh.supervision import wait_until_set

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.leader.election import Election
    from mesh.membership.registry import Registry

log = logging.getLogger(__name__)

#: It looks at least this often, seconds: an announcement may come after the death was noticed.
LOOK_EVERY_S = 0.5


class Reclaimer:
    """`run(fence)` for one term as master."""

    def __init__(
        self,
        bus: Bus,
        me: str,
        election: Election,
        registry: Registry,
        open_system: OpenSystem | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `open_system` deaths are noticed by silence only, and nobody is kicked."""
        self._bus, self._me, self._election, self._registry = bus, me, election, registry
        self._open_system, self._clock = open_system, clock
        self._look = asyncio.Event()
        self._connections: Connections | None = None

    async def run(self, fence: int) -> None:
        """Watch and reap until cancelled, or until the term is over."""
        memory = reclaim.Memory()
        unlisten = self._registry.listen(lambda *_: self._look.set())
        try:
            while self._election.fence in (fence, 0):
                self._look.clear()
                await self._open()
                memory = await self._reap(fence, memory)
                await wait_until_set(self._look, LOOK_EVERY_S)
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
            log.warning("deaths are noticed by silence only for now: %s", error.message)
        finally:
            if self._connections is None:
                await connections.close()

    async def _reap(self, fence: int, memory: reclaim.Memory) -> reclaim.Memory:
        replaced = list(self._registry.former_holders())
        dead, elsewhere = self._sense()
        # Told before it is acted on: an accusation, and the kick, change what there is to tell.
        self._registry.judge()
        actions, after = reclaim.plan_reclaim(dead, elsewhere, memory, self._clock())
        try:
            if actions:
                if await self._election.confirm() != fence:
                    return memory
                await self._act(dead, actions, fence)
        except QueztlError as error:
            log.warning("the work of dead nodes could not be given back just now: %s", error.message)
            return memory
        if self._election.fence == fence:
            for who in replaced:
                # Done with: given back now or before (it may have died before it was replaced), or in living hands.
                self._registry.forget_former(*who)
        return after

    def _sense(self) -> tuple[list[Dead], dict[int, int]]:
        """Who is dead and what it left; stream sequence -> highest delivery count among the living."""
        registry, elsewhere = self._registry, {}
        states = {one.record.id: one.state for one in registry.members()}
        dead = [
            Dead(node, seen.incarnation, registry.held_by(node), seen.connections)
            for node, seen in registry.seen().items()
            if states.get(node) == GONE and node != self._me
        ]
        dead += [Dead(*who, held) for who, held in registry.former_holders().items()]
        if any(one.held for one in dead):
            for node, state in states.items():
                for held in registry.held_by(node) if state in ALIVE else ():
                    elsewhere[held.stream_seq] = max(elsewhere.get(held.stream_seq, 0), held.delivered)
        return dead, elsewhere

    async def _act(self, dead: list[Dead], actions: list[Kick | GiveBack], fence: int) -> None:
        for one in dead:
            self._publish_death_notice(one)
        returned: dict[tuple[str, str], int] = {}
        lanes: set[Lane] = set()
        for action in actions:
            if isinstance(action, Kick):
                await self._kick(action)
            elif self._election.fence == fence:
                self._bus.nak(action.reply)
                who = (action.node, action.incarnation)
                returned[who] = returned.get(who, 0) + 1
                if (lane := subjects.split_durable(consumer_of_ack(action.reply))) is not None:
                    lanes.add(lane)
        for lane in lanes:
            self._bus.send(subjects.wake(*lane), b"")
        for (node, incarnation), count in returned.items():
            log.info("gave back %d deliveries that %s held when it died", count, node)
            if self._registry.is_present(node, incarnation):
                nothing = HeldSet(node=node, incarnation=incarnation, held=())
                self._bus.send(subjects.held(node), messages.encode(nothing))
            await journal.emit(self._bus, journal.WORK_RETURNED, {"deliveries": count}, node=node, fence=fence)

    def _publish_death_notice(self, one: Dead) -> None:
        if self._registry.is_present(one.node, one.incarnation):
            gone = Heartbeat(node=one.node, incarnation=one.incarnation, seq=0, state=GONE)
            self._bus.send(subjects.death_notice(one.node), messages.encode(gone))

    async def _kick(self, kick: Kick) -> None:
        if self._connections is None:
            return
        try:
            await self._connections.kick(kick.server_id, kick.client_id)
        except QueztlError as error:
            log.warning("the connection of dead node %s could not be closed: %s", kick.node, error.message)
