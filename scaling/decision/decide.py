"""How much capacity, which and where: `decide`, from what is seen, expected, offered and remembered. Pure.

For each pool the policies propose, the safest proposal wins, votes and windows calm it, bounds and the budget limit it,
and offers or idle nodes are picked. Each step leaves its sentence in the trail.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from scaling.decision import breakers, budget
from scaling.decision.damping import step
from scaling.decision.policies import cost, predictive, reactive
from scaling.decision.schedule import scheduled
from scaling.domain.config import ScalingConfig
from scaling.domain.model import (
    DRAINING,
    READY,
    Breaker,
    Decision,
    Forecast,
    Memory,
    Observation,
    Offer,
    Pool,
    PoolDecision,
    PoolMemory,
    Proposal,
)


def decide(
    observation: Observation,
    forecast: Mapping[str, Forecast],
    offers: Sequence[Offer],
    config: ScalingConfig,
    memory: Memory,
    now: float,
) -> tuple[Decision, Memory]:
    """What to start, drain and end now, and what to remember for the next time.

    `forecast`: pool -> its forecast, where there is one. `now`: Unix seconds. The same arguments give the same
    decision, and a decision never has an empty trail.
    """
    open_breakers = breakers.updated(memory.breakers, observation, config, now)
    running = budget.running_usd_h(node for pool in observation.pools for node in pool.nodes)
    room, wall = budget.room_usd_h(running, observation.spent_today_usd, config, now)
    over: set[str] = set()
    if room < 0:
        over |= set(budget.over_the_wall((node for pool in observation.pools for node in pool.nodes), -room))
    pools, remembered, launched = [], {}, 0.0
    for pool in observation.pools:
        before = memory.pools.get(pool.name)
        if before is None:  # nodes that are there at first sight may just have worked
            before = PoolMemory(asked_at=now) if pool.nodes else PoolMemory()
        decided, remembered[pool.name] = _pool(
            pool, forecast.get(pool.name), offers, room - launched, wall, over, open_breakers, config, before, now
        )
        launched += sum(one.count * one.price_usd_h for one in decided.launches)
        pools.append(decided)
    return Decision(now, tuple(pools), running, launched), Memory(remembered, open_breakers)


def _pool(
    pool: Pool,
    forecast: Forecast | None,
    offers: Sequence[Offer],
    room: float,
    wall: str,
    over: set[str],
    open_breakers: Mapping[str, Breaker],
    config: ScalingConfig,
    memory: PoolMemory,
    now: float,
) -> tuple[PoolDecision, PoolMemory]:
    nodes = [node for node in pool.nodes if node.has_gpu or not pool.needs_gpu]
    leaving = {node.id for node in nodes if node.ending or node.id in over or node.state == DRAINING}
    staying = [node for node in nodes if node.id not in leaving]
    have, ready = len(staying), sum(1 for node in staying if node.state == READY)
    busy = sum(1 for node in staying if node.running)
    trusted = predictive.is_trusted(forecast, config)
    work = pool.load > 0 or pool.queued > 0 or pool.cpu * ready > 0 or any(node.running for node in nodes)
    if work:
        memory = replace(memory, asked_at=now)
    lead_s = max((offer.start_s for offer in offers), default=0.0) if config.schedule else 0.0
    found, memory = proposals(pool, forecast, have, ready, work, trusted, lead_s, config, memory, now)
    safest = max(found, key=lambda one: one.nodes)
    trail = [*(f"{one.policy}: {one.reason}" for one in found), f"safest: {safest.policy}, {safest.nodes} nodes"]
    need = max(config.min_nodes, min(safest.nodes, config.max_nodes))
    if need != safest.nodes:
        trail.append(f"bounds: between {config.min_nodes} and {config.max_nodes} nodes, so {need}")
    taken, memory = step(need, have, have == 0, trusted, memory, config, now)
    trail.append(f"step: {taken.reason}")
    target = max(taken.target, min(need, config.min_nodes))
    target = min(max(target, busy) if target < have else target, config.max_nodes)
    launches, drains = (), tuple(node.id for node in nodes if node.id in leaving and node.state != DRAINING)
    if drains:
        trail.append(f"drained because they are taken away or over the budget ({wall}): {', '.join(drains)}")
    if target > have:
        launches, why = cost.choose(pool, target - have, staying, offers, room, open_breakers, config, now)
        target = have + sum(one.count for one in launches)
        trail += [f"offers: {reason}" for reason in why]
    elif target < have:
        idle = cost.give_up(pool, have - target, staying, config, now)
        if len(idle) < have - target:
            trail.append(f"idle: {len(idle)} of {have - target} nodes may go, the rest is busy, young or not ours")
        target, drains = have - len(idle), drains + idle
    ends = tuple(node.id for node in nodes if node.state == DRAINING and not node.running and node.managed)
    decided = PoolDecision(pool.name, have, target, launches, drains, ends, tuple(found), tuple(trail))
    return decided, memory


def proposals(
    pool: Pool,
    forecast: Forecast | None,
    have: int,
    ready: int,
    work: bool,
    trusted: bool,
    lead_s: float,
    config: ScalingConfig,
    memory: PoolMemory,
    now: float,
) -> tuple[list[Proposal], PoolMemory]:
    """What each policy wants, in the order in which they are asked, and the memory of a peak."""
    found = [reactive.propose(pool, have, ready, config, trusted)]
    if forecast is not None and trusted:
        found.append(predictive.propose(forecast, have, config))
    elif forecast is not None and forecast.why:
        found.append(Proposal("predictive", 0, f"not used: {forecast.why}"))
    wanted = max(one.nodes for one in found)
    if work:
        found.append(Proposal("work", 1, "there is work, so at least one node"))
    elif have and now - memory.asked_at < config.to_zero_after_s:
        found.append(Proposal("work", 1, f"nothing asked for {now - memory.asked_at:.0f} s: one node stays"))
    if config.warm_spares_nodes and (work or now - memory.asked_at < config.to_zero_after_s):
        spares = config.warm_spares_nodes
        found.append(Proposal("spares", wanted + spares, f"{spares} nodes are kept warm above the load"))
    if config.baseline_nodes:
        if wanted >= config.baseline_nodes:
            memory = replace(memory, peak_at=now)
        if now - memory.peak_at < config.baseline_keep_s:
            ago = f"a peak {now - memory.peak_at:.0f} s ago"
            found.append(Proposal("baseline", config.baseline_nodes, f"{config.baseline_nodes} nodes after {ago}"))
    if config.schedule:
        least, rule = scheduled(config.schedule, config.timezone, now, lead_s)
        if least:
            found.append(Proposal("schedule", least, rule))
    return found, memory
