"""`decide`: how many nodes, which offers and where, from what is observed, forecast, offered and remembered. Pure.

For each pool the policies propose a number of nodes, the highest proposal wins, votes and windows damp it, bounds and
the budget limit it, and offers or idle nodes are chosen. Each of these steps leaves one sentence in the trail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scaling.decision import breakers, budget
from scaling.decision.damping import step
from scaling.decision.policies import cost, predictive, reactive
from scaling.decision.schedule import scheduled_nodes
from scaling.domain.config import ScalingConfig
from scaling.domain.model import (
    DRAINING,
    READY,
    Breaker,
    Decision,
    Forecast,
    Launch,
    Memory,
    Observation,
    Offer,
    Pool,
    PoolDecision,
    PoolMemory,
    Proposal,
)
from scaling.domain.units import counted


@dataclass(frozen=True)
class _Limits:
    """What all pools share."""

    room_usd_h: float
    budget_limit: str
    over_budget: frozenset[str]
    """Ids of nodes that are drained because the budget is exceeded."""
    breakers: Mapping[str, Breaker]


def decide(
    observation: Observation,
    forecast: Mapping[str, Forecast],
    offers: Sequence[Offer],
    config: ScalingConfig,
    memory: Memory,
    now: float,
) -> tuple[Decision, Memory]:
    """(what to start, drain and end now, what to remember for the next decision).

    `forecast`: pool -> its forecast, where there is one. `now`: Unix seconds. The same arguments give the same
    decision, and a decision never has an empty trail.
    """
    nodes = [node for pool in observation.pools for node in pool.nodes]
    running = budget.running_usd_h(nodes)
    room, budget_limit = budget.room_usd_h(running, observation.spent_today_usd, config, now)
    over_budget = frozenset(budget.nodes_over_budget(nodes, -room) if room < 0 else ())
    updated = breakers.updated(memory.breakers, observation, config, now)
    pools: list[PoolDecision] = []
    remembered: dict[str, PoolMemory] = {}
    launched = 0.0
    for pool in observation.pools:
        before = memory.pools.get(pool.name)
        if before is None:  # nodes that are there at the first look may have worked a moment ago
            before = PoolMemory(last_work_at=now) if pool.nodes else PoolMemory()
        limits = _Limits(room - launched, budget_limit, over_budget, updated)
        decided, remembered[pool.name] = _decide_pool(
            pool, forecast.get(pool.name), offers, limits, config, before, now
        )
        launched += sum(launch.count * launch.price_usd_h for launch in decided.launches)
        pools.append(decided)
    return Decision(now, tuple(pools), running, launched), Memory(remembered, updated)


def _decide_pool(
    pool: Pool,
    forecast: Forecast | None,
    offers: Sequence[Offer],
    limits: _Limits,
    config: ScalingConfig,
    memory: PoolMemory,
    now: float,
) -> tuple[PoolDecision, PoolMemory]:
    nodes = [node for node in pool.nodes if node.has_gpu or not pool.needs_gpu]
    leaving = {node.id for node in nodes if node.ending or node.id in limits.over_budget or node.state == DRAINING}
    staying = [node for node in nodes if node.id not in leaving]
    have, ready = len(staying), sum(1 for node in staying if node.state == READY)
    busy = sum(1 for node in staying if node.running)
    trusted = predictive.is_trusted(forecast, config)
    has_work = pool.load > 0 or pool.queued > 0 or pool.cpu * ready > 0 or any(node.running for node in nodes)
    if has_work:
        memory = replace(memory, last_work_at=now)
    lead_s = max((offer.start_s for offer in offers), default=0.0) if config.schedule else 0.0
    found, memory = proposals(pool, forecast, have, ready, has_work, trusted, lead_s, config, memory, now)
    highest = max(found, key=lambda proposal: proposal.nodes)
    trail = [f"{proposal.policy}: {proposal.reason}" for proposal in found]
    trail.append(f"highest proposal: {highest.policy}, {counted(highest.nodes, 'node')}")
    need = max(config.min_nodes, min(highest.nodes, config.max_nodes))
    if need != highest.nodes:
        trail.append(
            f"bounds: {counted(need, 'node')}, because min_nodes is {config.min_nodes} and max_nodes {config.max_nodes}"
        )
    taken, memory = step(need, have, have == 0, trusted, memory, config, now)
    trail.append(f"step: {taken.reason}")
    target = max(taken.target, min(need, config.min_nodes))
    target = min(max(target, busy) if target < have else target, config.max_nodes)
    launches: tuple[Launch, ...] = ()
    drains = tuple(node.id for node in nodes if node.id in leaving and node.state != DRAINING)
    if drains:
        why = f"their provider takes them away, or the budget is exceeded ({limits.budget_limit})"
        trail.append(f"drain {', '.join(drains)}: {why}")
    if target > have:
        room = limits.room_usd_h
        launches, reasons = cost.choose_offers(pool, target - have, staying, offers, room, limits.breakers, config, now)
        target = have + sum(launch.count for launch in launches)
        trail += [f"offers: {reason}" for reason in reasons]
    elif target < have:
        idle = cost.choose_drains(pool, have - target, staying, config, now)
        if len(idle) < have - target:
            others = "the others are busy, younger than min_life_s, or not the scaler's to end"
            trail.append(f"idle: {len(idle)} of {have - target} nodes can be drained; {others}")
        target, drains = have - len(idle), drains + idle
    ends = tuple(node.id for node in nodes if node.state == DRAINING and not node.running and node.managed)
    decided = PoolDecision(pool.name, have, target, launches, drains, ends, tuple(found), tuple(trail))
    return decided, memory


def proposals(
    pool: Pool,
    forecast: Forecast | None,
    have: int,
    ready: int,
    has_work: bool,
    trusted: bool,
    lead_s: float,
    config: ScalingConfig,
    memory: PoolMemory,
    now: float,
) -> tuple[list[Proposal], PoolMemory]:
    """(what each policy asks for, in the order of the trail; the memory, with the last peak)."""
    found = [reactive.propose(pool, have, ready, config, trusted)]
    if forecast is not None and trusted:
        found.append(predictive.propose(forecast, have, config))
    elif forecast is not None and forecast.why:
        found.append(Proposal("predictive", 0, f"not used: {forecast.why}"))
    for_load = max(proposal.nodes for proposal in found)
    idle_s = now - memory.last_work_at
    if has_work:
        found.append(Proposal("work", 1, "there is work: at least one node"))
    elif have and idle_s < config.to_zero_after_s:
        found.append(
            Proposal("work", 1, f"no work for {idle_s:.0f} s: one node stays for {config.to_zero_after_s:g} s")
        )
    spares = config.warm_spares_nodes
    if spares and (has_work or idle_s < config.to_zero_after_s):
        found.append(Proposal("spares", for_load + spares, f"{spares} warm spare nodes above the load"))
    if config.baseline_nodes:
        if for_load >= config.baseline_nodes:
            memory = replace(memory, last_peak_at=now)
        peak_s = now - memory.last_peak_at
        if peak_s < config.baseline_keep_s:
            reason = f"{counted(config.baseline_nodes, 'node')}: the last peak was {peak_s:.0f} s ago"
            found.append(Proposal("baseline", config.baseline_nodes, reason))
    if config.schedule:
        least, rule = scheduled_nodes(config.schedule, config.timezone, now, lead_s)
        if least:
            found.append(Proposal("schedule", least, rule))
    return found, memory
