"""Carrying out what was found and decided: orders written, nodes told to go, instances ended.

Whatever can't be undone comes after the lease was read again. A node that is to go is told over the bus, finishes what
it runs, and leaves by itself; its provider is asked to end it when it has gone, or when it does not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

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
from scaling.observation.observe import everything
from scaling.providers.calls import call
from scaling.state.orders import ENDING, Intent, intend
from scaling.state.store import Store

log = logging.getLogger(__name__)


class Actuator:
    """The deeds of one term as master."""

    def __init__(
        self, world: MeshAccess, store: Store, launcher: Launcher, fence: int, clock: Callable[[], float]
    ) -> None:
        self._world, self._store, self._launcher = world, store, launcher
        self._fence, self._clock = fence, clock
        self._walls = ""

    # --- what was found -----------------------------------------------------------------------------
    async def settle(self, seen: Cycle) -> None:
        """Write what became of the orders; end what nobody accounts for. Raises: WrongSequence, BusUnavailable."""
        found, store = seen.found, self._store
        if not (found.end or found.leave or found.forget or found.write or seen.panic):
            return
        if await self._world.confirm() != self._fence:
            raise QueztlError("another node is master by now")
        for intent in found.write:
            await self._write(intent)
        for token in found.forget:
            if not self._launcher.is_under_way(token):
                await store.forget(token)
        for what, token, words in found.news:
            log.info("order %s: %s (%s)", token, what, words)
            await store.emit(f"scaling.{what}", {"token": token, "says": words}, fence=self._fence)
        for node, token, why in found.leave:
            self._tell_to_leave(node, token, why)
        ends = dict.fromkeys(found.end)
        if seen.panic:
            ends |= dict.fromkeys((one.provider, one.instance) for one in found.intents.values() if self._is_paid(one))
        await asyncio.gather(*(self._terminate(name, instance, seen) for name, instance in ends))

    async def _write(self, intent: Intent) -> None:
        if self._launcher.is_under_way(intent.token):
            return
        if self._store.knows(intent.token):
            await self._store.update(intent)
        else:
            await self._store.create(intent)

    def _is_paid(self, intent: Intent) -> bool:
        provider = self._world.providers.get(intent.provider)
        return bool(intent.instance) and provider is not None and provider.paid

    async def _terminate(self, name: str, instance: str, seen: Cycle) -> None:
        provider = self._world.providers.get(name)
        if provider is not None:
            asked: Awaitable[None] = provider.terminate(instance)
            await call(asked, seen.config.call_timeout_s, f"ending {instance} of {name}", seen.notes)

    def _tell_to_leave(self, node: str, token: str, why: str) -> None:
        order = LeaveOrder(token=token, fence=self._fence, reason=why)
        self._world.bus.send(subjects.leave(node), encode(order))

    # --- what was decided ---------------------------------------------------------------------------
    async def carry_out(self, seen: Cycle, made: Decision) -> None:
        """Drain, then start. Raises: WrongSequence, BusUnavailable; what was not done is decided again."""
        await self._drain(seen, made)
        by_id = {offer.id: offer for offer in seen.offers}
        wanted = [(pool.pool, one) for pool in made.pools for one in pool.launches]
        for pool, launch in wanted:
            for _ in range(launch.count):
                if not await self._order(by_id[launch.offer], pool, seen):
                    return

    async def _order(self, offer: Offer, pool: str, seen: Cycle) -> bool:
        """Whether to go on: the wall by what is so right now, then the lease, then the order."""
        world, now, held = self._world, self._clock(), seen.config
        intents = {one.token: one for one in await self._store.intents()}
        nodes = everything(world.members(), intents)
        provider = world.providers[offer.provider]
        why = launch_guard.refusal(
            offer, provider.paid, nodes, seen.state.spent_usd, world.has_key, seen.panic, held, now
        )  # fmt: skip
        if why:
            seen.notes.append(f"{offer.id} not started: {why}")
            if why != self._walls:
                await self._store.emit("scaling.wall", {"offer": offer.id, "says": why}, fence=self._fence)
            self._walls = why
            return False
        self._walls = ""
        intent = intend(offer, pool, provider.place, self._fence, now + 2 * held.join_within_s, now)
        return await self._launcher.order(intent, held.call_timeout_s, held.dead_man_s)

    async def _drain(self, seen: Cycle, made: Decision) -> None:
        """Tell those to go that every pool they work for gives up."""
        by_pool = {one.pool: set(one.drains) for one in made.pools}
        given_up = set().union(*by_pool.values())
        for pool in seen.seen.pools:
            given_up -= {node.id for node in pool.nodes} - by_pool[pool.name]
        if not given_up or await self._world.confirm() != self._fence:
            return
        for token, intent in list(seen.found.intents.items()):
            gone = intent.node in given_up or token in given_up
            if not gone or intent.state == ENDING or self._launcher.is_under_way(token):
                continue
            ending = replace(intent, state=ENDING, ending_at=seen.now, why="scale-in: it is not needed")
            await self._store.update(ending)
            seen.found.intents[token] = ending
            detail = {"token": token, "node": intent.node, "says": ending.why}
            await self._store.emit("scaling.draining", detail, fence=self._fence)
            if intent.node:
                self._tell_to_leave(intent.node, token, ending.why)
