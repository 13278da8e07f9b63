"""Which offers to take, and which nodes to give up: by the expected cost of a unit of work. Pure.

The cost of a unit is (price + egress) / (speed x useful share of the time). Useful is what is left of a node's life
after its start, less what interruptions cost. Nodes are picked one after the other, each by what is there with those
before it, so that wanting one more never changes the first ones.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil, inf

from scaling.decision.policies.geo import distance_km, may_stay, most_wanting
from scaling.domain.config import ScalingConfig
from scaling.domain.model import OWN, SPOT, Breaker, Launch, Node, Offer, Pool
from scaling.domain.units import USD_EPSILON


def usd_per_unit(offer: Offer, pool: str, offers: Sequence[Offer], config: ScalingConfig) -> float:
    """Expected dollars a unit of the pool's work; infinite for what would never do any."""
    life_s = min(config.expected_life_s, 3600.0 / offer.interruptions_h if offer.interruptions_h else inf)
    lost = offer.interruptions_h * (config.rework_s + offer.start_s) / 3600.0
    useful = max(0.0, 1.0 - offer.start_s / life_s) * max(0.0, 1.0 - lost)
    done = speed_of(offer, pool, offers) * useful
    return (offer.price_usd_h + config.egress_gb_h * offer.egress_usd_gb) / done if done > 0 else inf


def speed_of(offer: Offer, pool: str, offers: Sequence[Offer]) -> float:
    """Units of the pool's work an hour: as measured, else by cores and what a core of its class does elsewhere.

    A pool that must stay in a region (`cpu.eu`) does the same work as the one that need not.
    """
    pool = pool.partition(".")[0]
    if pool in offer.speed:
        return offer.speed[pool]
    a_core = [
        one.speed[pool] / max(1, one.vcpus) for one in offers if pool in one.speed and one.has_gpu == offer.has_gpu
    ]
    return max(1, offer.vcpus) * (statistics.median(a_core) if a_core else 1.0)


def refusal(offer: Offer, pool: Pool, breakers: Mapping[str, Breaker], now: float) -> str:
    """Why an offer can't be taken for this pool; "" when it can."""
    if pool.needs_gpu and not offer.has_gpu:
        return "no GPU"
    if not may_stay(pool.region, offer.region):
        return f"not in {pool.region}"
    broken = breakers.get(offer.id)
    if broken and now < broken.shunned_until:
        return f"failed {broken.failures} times, left alone for {broken.shunned_until - now:.0f} s"
    return ""


def choose(
    pool: Pool,
    count: int,
    staying: Sequence[Node],
    offers: Sequence[Offer],
    room_usd_h: float,
    breakers: Mapping[str, Breaker],
    config: ScalingConfig,
    now: float,
) -> tuple[tuple[Launch, ...], tuple[str, ...]]:
    """(what to start for `count` more nodes beside those `staying`, why so few or why these).

    `room_usd_h`: what the budget leaves; nothing goes over it.
    """
    refused = {offer.id: refusal(offer, pool, breakers, now) for offer in offers}
    able = [offer for offer in offers if not refused[offer.id]]
    reasons = [f"{name}: {why}" for name, why in sorted(refused.items()) if why]
    costs = {offer.id: usd_per_unit(offer, pool.name, offers, config) for offer in able}
    able = [offer for offer in able if costs[offer.id] < inf]
    there = [(node.market, node.offer, node.region) for node in staying]
    picked: Counter[str] = Counter()
    by_id = {offer.id: offer for offer in able}
    for number in range(count):
        left = _by_market([one for one in able if picked[one.id] < one.available], there, by_id, config)
        fits = [offer for offer in left if offer.price_usd_h <= room_usd_h + USD_EPSILON]
        if not fits:
            why = f"the budget leaves {room_usd_h:.4f} $/h" if left else "no offer is left"
            reasons.append(f"{count - number} of {count} nodes not started: {why}")
            break
        best = _nearest(fits, pool, there, costs, config)
        picked[best.id] += 1
        room_usd_h -= best.price_usd_h
        there.append((best.market, best.id, best.region))
    launches = tuple(Launch(name, many, by_id[name].price_usd_h) for name, many in sorted(picked.items()))
    reasons += [f"{one.count} of {one.offer}: {costs[one.offer]:.5f} $ a unit of work" for one in launches]
    return launches, tuple(reasons)


def _by_market(
    left: list[Offer], there: list[tuple[str, str, str]], by_id: Mapping[str, Offer], config: ScalingConfig
) -> list[Offer]:
    """What the on-demand floor and the spread of spot leave for the next node."""
    rented = [market for market, _, _ in there if market != OWN]
    spots = rented.count(SPOT)
    if len(rented) - spots < ceil(config.on_demand_floor * (len(rented) + 1)):
        # Nothing but spot to be had at all: better that than nothing.
        return [offer for offer in left if offer.market != SPOT] or (
            left if all(offer.market == SPOT for offer in by_id.values()) else []
        )
    limit = max(1, ceil(config.spot_share_of_one * (spots + 1)))
    in_place: Counter[tuple[str, str]] = Counter()
    for market, name, _ in there:
        if market == SPOT and name in by_id:
            in_place[by_id[name].type, by_id[name].zone] += 1
    spread = [one for one in left if one.market != SPOT or in_place[one.type, one.zone] < limit]
    return spread if any(one.market == SPOT for one in spread) else left


def _nearest(
    fits: Sequence[Offer],
    pool: Pool,
    there: Sequence[tuple[str, str, str]],
    costs: Mapping[str, float],
    config: ScalingConfig,
) -> Offer:
    """The cheapest offer, or the cheapest of those nearest to the demand when it is not much dearer."""
    cheapest = min(fits, key=lambda one: (costs[one.id], one.id))
    region = most_wanting(pool.demand_by_region, (place for _, _, place in there))
    if not region:
        return cheapest
    way = {one.id: distance_km(region, one.region, config.places) for one in fits}
    near = min(fits, key=lambda one: (way[one.id], costs[one.id], one.id))
    return near if costs[near.id] <= costs[cheapest.id] * (1.0 + config.near_premium) else cheapest


def give_up(pool: Pool, count: int, staying: Sequence[Node], config: ScalingConfig, now: float) -> tuple[str, ...]:
    """Ids of at most `count` nodes to drain: idle, old enough, ours to end; the dearest and farthest first.

    The on-demand floor is kept among those that stay: with each spot node that goes, fewer have to be on demand.
    """
    free = [
        node
        for node in staying
        if node.state == "ready" and not node.running and node.managed and now - node.launched_at >= config.min_life_s
    ]
    rented = sum(1 for node in staying if node.market != OWN)
    spots = sum(1 for node in staying if node.market == SPOT)
    asked = pool.demand_by_region

    def order(node: Node) -> tuple[float, bool, float, str]:
        return -node.price_usd_h, node.region in asked, -node.launched_at, node.id

    firm = sorted((node for node in free if node.market not in (OWN, SPOT)), key=order, reverse=True)
    others = sorted((node for node in free if node.market in (OWN, SPOT)), key=order, reverse=True)
    chosen: list[str] = []
    while len(chosen) < count:
        may = firm and (not spots or rented - 1 - spots >= ceil(config.on_demand_floor * (rented - 1)))
        heads = [group for group in (firm if may else [], others) if group]
        if not heads:
            break
        node = min(heads, key=lambda group: order(group[-1])).pop()
        spots -= node.market == SPOT
        rented -= node.market != OWN
        chosen.append(node.id)
    return tuple(chosen)
