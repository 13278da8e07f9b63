"""Capacity follows demand: the loop that looks, decides and acts. A service of the master.

Everything it decides with is a pure function beside it (`reconcile`, `observe`, `decide`, `wall`); everything it must
not forget lies in the mesh (`store`). What it promises: an order is in the mesh before its provider hears of it, the
lease is read again before each order, and a node is told to go only when the decision or the sweep says so. The time it
goes by is the machine's when its term began, and from then on a clock that nobody can set.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from mesh import subjects
from scaling.actuation.actuator import Actuator
from scaling.actuation.launcher import Launcher
from scaling.decision.decide import decide
from scaling.decision.handover import recalled
from scaling.domain.model import Decision, Observation
from scaling.forecast.loop import COMMAND, Forecaster
from scaling.log import decision_record
from scaling.log.status import status_document
from scaling.observation.collect import Collector, Cycle
from scaling.observation.mesh_access import MeshAccess
from scaling.state.memory import State
from scaling.state.settings import Policy
from scaling.state.spend import spent
from scaling.state.store import DECIDED, REMEMBERED, Store

log = logging.getLogger(__name__)
#: While nothing may be started, the policy is looked at this often, seconds, should a hint of its change be lost.
OFF_LOOK_S = 30.0
#: Weight of the newest start in the running mean of how long starts take.
NEWEST = 0.3

_WISHES = (subjects.SCALING_POLICY, subjects.SCALING_MANUAL, subjects.SCALING_PANIC)


def term_clock() -> Callable[[], float]:
    """Unix seconds that no setting of the clock moves: the wall clock now, and what passes from now on."""
    offset = time.time() - time.monotonic()
    return lambda: time.monotonic() + offset


class Controller:
    """`run(fence)` is what the master runs; cancelled when it no longer is one."""

    def __init__(
        self,
        world: MeshAccess,
        make_clock: Callable[[], Callable[[], float]] = term_clock,
        forecaster: Sequence[str] = COMMAND,
    ) -> None:
        """`make_clock`: makes the clock of a term; `forecaster`: the command that makes forecasts."""
        self._world, self._make_clock, self._forecaster = world, make_clock, forecaster

    async def run(self, fence: int) -> None:
        """Decide for as long as this node is master. Raises: BusUnavailable, WrongSequence; it may be run again."""
        world, store, wished = self._world, Store(self._world.bus), asyncio.Event()
        launcher = Launcher(store, world.providers, fence, world.confirm, world.mesh, world.join)
        clock = self._make_clock()
        forecaster = Forecaster(world.bus, world.resources, clock, self._forecaster)
        term = _Term(world, store, launcher, fence, clock, forecaster)
        watch = await store.kv.watch(lambda key: wished.set() if key in _WISHES else None)
        forecasts = asyncio.create_task(forecaster.run(), name="forecasts")
        try:
            while True:
                wished.clear()
                wait_s = await term.round()
                try:
                    async with asyncio.timeout(wait_s):
                        await wished.wait()
                except TimeoutError:
                    pass
        finally:
            forecasts.cancel()
            await asyncio.gather(forecasts, return_exceptions=True)
            await launcher.close()
            await watch.close()


class _Term:
    """One term as master: sense, settle, decide, act, report."""

    def __init__(
        self,
        world: MeshAccess,
        store: Store,
        launcher: Launcher,
        fence: int,
        clock: Callable[[], float],
        forecaster: Forecaster,
    ) -> None:
        self._world, self._store, self._launcher, self._fence = world, store, launcher, fence
        self._collector = Collector(world, store, clock)
        self._forecaster = forecaster
        self._actuator = Actuator(world, store, launcher, fence, clock)
        self._told: tuple[Any, ...] = ()
        self._told_at = float("-inf")

    async def round(self) -> float:
        """One look and what follows from it; seconds until the next one is due."""
        given = await self._store.policy()
        if given is None or not given.enabled:
            await self._report_off(given)
            return OFF_LOOK_S
        seen = await self._collector.look(given)
        await self._actuator.settle(seen)
        made, seen.state = await self._decide(seen)
        # Over what was read: a master that was overtaken meanwhile is refused here, before it does anything.
        await self._store.put_state(seen.state)
        await self._actuator.carry_out(seen, made)
        expected = self._forecaster.document(seen.now)
        await self._store.put_status(status_document(self._world.me, self._fence, seen, made, expected))
        return seen.config.decide_every_s

    async def _decide(self, seen: Cycle) -> tuple[Decision, State]:
        now, held = seen.now, seen.config
        nodes = {node.id: node for pool in seen.seen.pools for node in pool.nodes}
        state = spent(seen.state, sum(node.price_usd_h for node in nodes.values()), now)
        failed = (*seen.found.failed, *self._launcher.take_failed())
        joined = tuple(offer for offer, _ in seen.found.joined)
        observation = Observation(seen.seen.pools, state.spent_usd, failed, joined)
        expected = self._forecaster.look(seen)
        if self._forecaster.problem:
            seen.notes.append(f"forecast: {self._forecaster.problem}")
        memory = recalled(state.memory, held, now)
        inputs = decision_record.Inputs(observation, expected, seen.offers, held, memory, now)
        made, after = decide(observation, expected, seen.offers, held, inputs.memory, now)
        starts = dict(state.starts_s)
        for offer, took_s in seen.found.joined:
            starts[offer] = starts[offer] * (1 - NEWEST) + took_s * NEWEST if offer in starts else took_s
        kept = (*state.decisions, *await self._journal(made, inputs, seen))[-REMEMBERED:]
        return made, replace(state, memory=after, starts_s=starts, decisions=kept)

    async def _journal(self, made: Decision, inputs: decision_record.Inputs, seen: Cycle) -> list[int]:
        essence = decision_record.essence(made)
        quiet = essence == self._told and seen.now - self._told_at < inputs.config.journal_every_s
        if quiet and not decision_record.acts(made):
            return []
        self._told, self._told_at = essence, seen.now
        detail = decision_record.document(made, inputs, seen.policy.version, seen.notes)
        return [await self._store.emit(DECIDED, detail, self._world.me, self._fence)]

    async def _report_off(self, given: Policy | None) -> None:
        said = ("off", given.version if given else 0)
        if said != self._told:
            self._told = said
            status = {"state": "off", "policy": said[1], "master": self._world.me, "fence": self._fence}
            await self._store.put_status(status)
