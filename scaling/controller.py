"""The control loop of capacity: observe, decide, act. The leader runs it as a service.

Every decision is a pure function (`reconcile`, `observe`, `decide`, `launch_guard`); everything that must not be lost
is in the mesh (`state/store`). The loop guarantees: an order is stored before its provider is called, the lease is read
again before each order, and a node is told to leave only by a decision or by the sweep. Within a term it goes by a
clock that nobody can set: the time of the bus when the term began, plus monotonic time. So successive leaders compare
what they remember on one clock, whatever their machines say the time is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from mesh import subjects
from scaling.actuation.actuator import Actuator
from scaling.actuation.launcher import Launcher
from scaling.decision.decide import decide
from scaling.decision.handover import clamp_to_clock
from scaling.domain.model import Decision, Observation
from scaling.forecast.loop import COMMAND, Forecaster
from scaling.log import decision_record
from scaling.log.status import status_document
from scaling.observation.collect import Collector, Cycle
from scaling.observation.mesh_access import MeshAccess
from scaling.state.memory import State
from scaling.state.settings import Policy
from scaling.state.spend import add_spending
from scaling.state.store import DECIDED, DECISIONS_LISTED, Store

#: Period at which the policy is read while scaling is off, seconds, in case the notice of its change is lost.
OFF_PERIOD_S = 30.0
#: Weight of the newest start in the running mean of how long starts take.
NEWEST_WEIGHT = 0.3

#: A change of these keys begins the next cycle at once.
_SET_BY_PEOPLE = (subjects.SCALING_POLICY, subjects.SCALING_MANUAL, subjects.SCALING_PANIC)


class Controller:
    """`run(fence)` is a service of the leader; it is cancelled when the node no longer is one."""

    def __init__(
        self,
        mesh: MeshAccess,
        make_clock: Callable[[], Callable[[], float]] | None = None,
        forecast_command: Sequence[str] = COMMAND,
    ) -> None:
        """`make_clock`: makes the clock of a term, None: that of the bus; `forecast_command`: fits the forecasts."""
        self._mesh, self._make_clock, self._forecast_command = mesh, make_clock, forecast_command

    async def run(self, fence: int) -> None:
        """Decide for as long as this node leads. Raises: BusUnavailable, WrongSequence; it may be run again."""
        mesh, store, set_by_people = self._mesh, Store(self._mesh.bus), asyncio.Event()
        launcher = Launcher(
            store, mesh.providers, fence, mesh.confirm_lease, mesh.mesh_id, mesh.mesh_name, mesh.join_urls
        )
        clock = self._make_clock() if self._make_clock else await store.clock.continued()
        forecaster = Forecaster(mesh.bus, mesh.resources, clock, self._forecast_command)
        term = _Term(mesh, store, launcher, fence, clock, forecaster)
        watch = await store.kv.watch(lambda key: set_by_people.set() if key in _SET_BY_PEOPLE else None)
        forecasts = asyncio.create_task(forecaster.run(), name="forecasts")
        try:
            while True:
                set_by_people.clear()
                wait_s = await term.cycle()
                try:
                    async with asyncio.timeout(wait_s):
                        await set_by_people.wait()
                except TimeoutError:
                    pass
        finally:
            forecasts.cancel()
            await asyncio.gather(forecasts, return_exceptions=True)
            await launcher.close()
            await watch.close()


class _Term:
    """One term as leader: collect, settle, decide, act, report."""

    def __init__(
        self,
        mesh: MeshAccess,
        store: Store,
        launcher: Launcher,
        fence: int,
        clock: Callable[[], float],
        forecaster: Forecaster,
    ) -> None:
        self._mesh, self._store, self._launcher, self._fence = mesh, store, launcher, fence
        self._collector = Collector(mesh, store, clock)
        self._forecaster = forecaster
        self._actuator = Actuator(mesh, store, launcher, fence, clock)
        self._journaled: tuple[Any, ...] = ()
        self._journaled_at = float("-inf")

    async def cycle(self) -> float:
        """Run one control cycle; returns the seconds until the next one is due."""
        policy = await self._store.policy()
        if policy is None or not policy.enabled:
            return await self._stand_by(policy)
        cycle = await self._collector.collect(policy)
        await self._actuator.settle(cycle)
        decision, cycle.state = await self._decide(cycle)
        # Written over the revision that was read: a superseded leader is refused here, before it starts anything.
        await self._store.put_state(cycle.state)
        await self._actuator.carry_out(cycle, decision)
        forecasts = self._forecaster.document(cycle.now)
        status = status_document(self._mesh.node_id, self._fence, cycle, decision, forecasts)
        await self._store.put_status(status)
        return cycle.config.decide_every_s

    async def _decide(self, cycle: Cycle) -> tuple[Decision, State]:
        now, config, reconciled = cycle.now, cycle.config, cycle.reconciled
        nodes = {node.id: node for pool in cycle.snapshot.pools for node in pool.nodes}
        state = add_spending(cycle.state, sum(node.price_usd_h for node in nodes.values()), now)
        failed = (*reconciled.failed, *self._launcher.take_failed())
        joined = tuple(offer for offer, _ in reconciled.joined)
        observation = Observation(cycle.snapshot.pools, state.spent_usd, failed, joined)
        forecasts = self._forecaster.forecasts(cycle)
        if self._forecaster.problem:
            cycle.notes.append(f"forecast: {self._forecaster.problem}")
        memory = clamp_to_clock(state.memory, config, now)
        inputs = decision_record.Inputs(observation, forecasts, cycle.offers, config, memory, now)
        decision, after = decide(observation, forecasts, cycle.offers, config, memory, now)
        starts_s = dict(state.starts_s)
        for offer, took_s in reconciled.joined:
            mean_s = starts_s.get(offer, took_s)
            starts_s[offer] = mean_s * (1 - NEWEST_WEIGHT) + took_s * NEWEST_WEIGHT
        numbers = (*state.decisions, *await self._journal(decision, inputs, cycle))[-DECISIONS_LISTED:]
        return decision, replace(state, memory=after, starts_s=starts_s, decisions=numbers)

    async def _journal(self, decision: Decision, inputs: decision_record.Inputs, cycle: Cycle) -> list[int]:
        """Journal a decision that is news or due; returns its number in the journal, if it was."""
        fingerprint = decision_record.fingerprint(decision)
        is_recent = cycle.now - self._journaled_at < inputs.config.journal_every_s
        if fingerprint == self._journaled and is_recent and not decision_record.has_effect(decision):
            return []
        self._journaled, self._journaled_at = fingerprint, cycle.now
        detail = decision_record.document(decision, inputs, cycle.policy.version, cycle.notes)
        return [await self._store.emit(DECIDED, detail, self._mesh.node_id, self._fence)]

    async def _stand_by(self, policy: Policy | None) -> float:
        """One cycle while scaling is off: nothing is started or drained, but nodes that were started are watched and
        paid for until they are gone. Returns the seconds until the next cycle is due."""
        if not await self._store.intents():
            await self._report_off(policy)
            return OFF_PERIOD_S
        cycle = await self._collector.collect(policy or Policy())
        await self._actuator.settle(cycle)
        running_usd_h = sum(intent.price_usd_h for intent in cycle.reconciled.intents.values())
        cycle.state = add_spending(cycle.state, running_usd_h, cycle.now)
        await self._store.put_state(cycle.state)
        nothing = Decision(cycle.now, (), running_usd_h, 0.0)
        await self._store.put_status(status_document(self._mesh.node_id, self._fence, cycle, nothing, {}))
        self._journaled = ()
        return cycle.config.decide_every_s

    async def _report_off(self, policy: Policy | None) -> None:
        """Publish once that scaling is off."""
        version = policy.version if policy else 0
        if self._journaled != ("off", version):
            self._journaled = ("off", version)
            status = {"state": "off", "policy": version, "master": self._mesh.node_id, "fence": self._fence}
            await self._store.put_status(status)
