"""Carries out what was reconciled and decided: stores orders, tells nodes to leave, ends instances.

What can't be undone is done only after the lease was read again. A node that is to go is told over the bus, finishes
what it runs and leaves by itself; its provider ends the instance when the node has left, or when it does not leave.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from msgspec.structs import replace

from mesh import subjects
from mesh.capacity import LeaveOrder
from mesh.errors import QueztlError
from mesh.messages import encode
from scaling.actuation.launcher import Launcher
from scaling.decision import launch_guard
from scaling.domain.model import Decision, Offer
from scaling.observation.collect import Cycle
from scaling.observation.mesh_access import MeshAccess
from scaling.observation.observe import all_nodes
from scaling.providers.calls import call
from scaling.state.orders import ENDING, Intent, new_intent
from scaling.state.store import Store

log = logging.getLogger(__name__)


class Actuator:
    """The actions of one term as leader."""

    def __init__(
        self, mesh: MeshAccess, store: Store, launcher: Launcher, fence: int, clock: Callable[[], float]
    ) -> None:
        self._mesh, self._store, self._launcher = mesh, store, launcher
        self._fence, self._clock = fence, clock
        self._last_refusal = ""

    # --- what was reconciled ------------------------------------------------------------------------
    async def settle(self, cycle: Cycle) -> None:
        """Store what became of the orders, end what has no order. Raises: WrongSequence, BusUnavailable."""
        found, store = cycle.reconciled, self._store
        if not (found.end or found.leave or found.forget or found.write or cycle.panic):
            return
        if await self._mesh.confirm_lease() != self._fence:
            raise QueztlError("another node has become the leader")
        for intent in found.write:
            await self._write(intent)
        for token in found.forget:
            if not self._launcher.is_pending(token):
                await store.forget(token)
        for event, token, sentence in found.events:
            log.info("order %s %s: %s", token, event, sentence)
            await store.emit(f"scaling.{event}", {"token": token, "says": sentence}, fence=self._fence)
        for node, token, why in found.leave:
            self._tell_to_leave(node, token, why)
        ends = dict.fromkeys(found.end)
        if cycle.panic:
            paid = [intent for intent in found.intents.values() if self._is_paid(intent)]
            ends |= dict.fromkeys((intent.provider, intent.instance) for intent in paid)
        await asyncio.gather(*(self._terminate(name, instance, cycle) for name, instance in ends))

    async def _write(self, intent: Intent) -> None:
        if self._launcher.is_pending(intent.token):
            return
        if self._store.knows(intent.token):
            await self._store.update(intent)
        else:
            await self._store.create(intent)

    def _is_paid(self, intent: Intent) -> bool:
        provider = self._mesh.providers.get(intent.provider)
        return bool(intent.instance) and provider is not None and provider.paid

    async def _terminate(self, name: str, instance: str, cycle: Cycle) -> None:
        provider = self._mesh.providers.get(name)
        if provider is not None:
            request = provider.terminate(instance)
            await call(request, cycle.config.call_timeout_s, f"ending {instance} of {name}", cycle.notes)

    def _tell_to_leave(self, node: str, token: str, why: str) -> None:
        order = LeaveOrder(token=token, fence=self._fence, reason=why)
        self._mesh.bus.send(subjects.leave(node), encode(order))

    # --- what was decided ---------------------------------------------------------------------------
    async def carry_out(self, cycle: Cycle, decision: Decision) -> None:
        """Drain, then start. Raises: WrongSequence, BusUnavailable; what was not done is decided again."""
        await self._drain(cycle, decision)
        by_id = {offer.id: offer for offer in cycle.offers}
        for pool in decision.pools:
            for launch in pool.launches:
                for _ in range(launch.count):
                    if not await self._order(by_id[launch.offer], pool.pool, cycle):
                        return

    async def _order(self, offer: Offer, pool: str, cycle: Cycle) -> bool:
        """Whether to go on: the launch guard, by the nodes that are there right now, then the lease, then the order."""
        mesh, now, config = self._mesh, self._clock(), cycle.config
        intents = {intent.token: intent for intent in await self._store.intents()}
        nodes = all_nodes(mesh.members(), intents)
        provider = mesh.providers[offer.provider]
        why = launch_guard.refusal(
            offer, provider.paid, nodes, cycle.state.spent_usd, mesh.has_key, cycle.panic, config, now
        )
        if why:
            cycle.notes.append(f"{offer.id} not started: {why}")
            if why != self._last_refusal:
                detail = {"offer": offer.id, "says": why}
                await self._store.emit("scaling.launch_refused", detail, fence=self._fence)
            self._last_refusal = why
            return False
        self._last_refusal = ""
        intent = new_intent(offer, pool, provider.place, self._fence, now + 2 * config.join_within_s, now)
        return await self._launcher.order(intent, config.call_timeout_s, config.dead_man_s)

    async def _drain(self, cycle: Cycle, decision: Decision) -> None:
        """Tell the nodes to leave that every pool they work for drains."""
        by_pool = {pool.pool: set(pool.drains) for pool in decision.pools}
        drained = set[str]().union(*by_pool.values())
        for pool in cycle.snapshot.pools:
            drained -= {node.id for node in pool.nodes} - by_pool[pool.name]
        if not drained or await self._mesh.confirm_lease() != self._fence:
            return
        intents = cycle.reconciled.intents
        for token, intent in list(intents.items()):
            is_drained = intent.node in drained or token in drained
            if not is_drained or intent.state == ENDING or self._launcher.is_pending(token):
                continue
            ending = replace(intent, state=ENDING, ending_at=cycle.now, why="scale-in: the node is not needed")
            await self._store.update(ending)
            intents[token] = ending
            detail = {"token": token, "node": intent.node, "says": ending.why}
            await self._store.emit("scaling.draining", detail, fence=self._fence)
            if intent.node:
                self._tell_to_leave(intent.node, token, ending.why)
