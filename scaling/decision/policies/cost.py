"""Which offers to start and which nodes to drain: by the expected cost of a unit of work. Pure.

The cost of a unit is (price + egress) / (speed x useful share of the time). Useful is what is left of a node's life
after its start, less what interruptions cost. Nodes are chosen one after the other, each given those chosen before it,
so that one more node never changes the first choices.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil, inf

from scaling.decision.policies.geo import allows_region, distance_km, most_underserved
from scaling.domain.config import ScalingConfig
from scaling.domain.model import OWN, READY, SPOT, Breaker, Launch, Node, Offer, Pool
from scaling.domain.units import HOUR_S, USD_EPSILON

#: (market, offer, region) of a node that is there or chosen.
Placed = tuple[str, str, str]


def usd_per_unit(offer: Offer, pool: str, offers: Sequence[Offer], config: ScalingConfig) -> float:
    """Expected dollars per unit of the pool's work; infinite for an offer that would never do any."""
    life_s = min(config.expected_life_s, HOUR_S / offer.interruptions_h if offer.interruptions_h else inf)
    lost = offer.interruptions_h * (config.rework_s + offer.start_s) / HOUR_S
    useful = max(0.0, 1.0 - offer.start_s / life_s) * max(0.0, 1.0 - lost)
    done = speed_of(offer, pool, offers) * useful
    return (offer.price_usd_h + config.egress_gb_h * offer.egress_usd_gb) / done if done > 0 else inf


def speed_of(offer: Offer, pool: str, offers: Sequence[Offer]) -> float:
    """Units of the pool's work per hour: as measured, else estimated from the median core of its class.

    A pool that must stay in a region (`cpu.eu`) does the same work as the pool without that limit.
    """
    pool = pool.partition(".")[0]
    if pool in offer.speed:
        return offer.speed[pool]
    per_core = [
        other.speed[pool] / max(1, other.vcpus)
        for other in offers
        if pool in other.speed and other.has_gpu == offer.has_gpu
    ]
    return max(1, offer.vcpus) * (statistics.median(per_core) if per_core else 1.0)


def refusal(offer: Offer, pool: Pool, breakers: Mapping[str, Breaker], now: float) -> str:
    """Why an offer can't be started for this pool; "" when it can."""
    if pool.needs_gpu and not offer.has_gpu:
        return "no GPU"
    if not allows_region(pool.region, offer.region):
        return f"not in region {pool.region}"
    breaker = breakers.get(offer.id)
    if breaker and now < breaker.open_until:
        return f"failed {breaker.failures} times, left alone for {breaker.open_until - now:.0f} s"
    return ""


def choose_offers(
    pool: Pool,
    count: int,
    staying: Sequence[Node],
    offers: Sequence[Offer],
    room_usd_h: float,
    breakers: Mapping[str, Breaker],
    config: ScalingConfig,
    now: float,
) -> tuple[tuple[Launch, ...], tuple[str, ...]]:
    """(launches for `count` more nodes beside those `staying`, the reasons for them or for fewer).

    `room_usd_h`: dollars per hour that the budget leaves; the launches never cost more.
    """
    refused = {offer.id: refusal(offer, pool, breakers, now) for offer in offers}
    reasons = [f"{name}: {why}" for name, why in sorted(refused.items()) if why]
    usable = [offer for offer in offers if not refused[offer.id]]
    costs = {offer.id: usd_per_unit(offer, pool.name, offers, config) for offer in usable}
    by_id = {offer.id: offer for offer in usable if costs[offer.id] < inf}
    placed = [(node.market, node.offer, node.region) for node in staying]
    picked: Counter[str] = Counter()
    for number in range(count):
        left = [offer for offer in by_id.values() if picked[offer.id] < offer.available]
        left = _market_rules(left, placed, by_id, config)
        affordable = [offer for offer in left if offer.price_usd_h <= room_usd_h + USD_EPSILON]
        if not affordable:
            why = f"the budget leaves {room_usd_h:.4f} $/h" if left else "no offer is left"
            reasons.append(f"{count - number} of {count} nodes not started: {why}")
            break
        best = _nearest(affordable, pool, placed, costs, config)
        picked[best.id] += 1
        room_usd_h -= best.price_usd_h
        placed.append((best.market, best.id, best.region))
    launches = tuple(Launch(name, many, by_id[name].price_usd_h) for name, many in sorted(picked.items()))
    reasons += [
        f"{launch.count} of {launch.offer}, {costs[launch.offer]:.5f} $ per unit of work" for launch in launches
    ]
    return launches, tuple(reasons)


def _market_rules(
    left: list[Offer], placed: Sequence[Placed], by_id: Mapping[str, Offer], config: ScalingConfig
) -> list[Offer]:
    """The offers that the on-demand floor and the spread of spot nodes leave for the next node."""
    rented = [market for market, _, _ in placed if market != OWN]
    spots = rented.count(SPOT)
    if len(rented) - spots < ceil(config.on_demand_floor * (len(rented) + 1)):
        # Where there is nothing but spot, spot is better than no node.
        return [offer for offer in left if offer.market != SPOT] or (
            left if all(offer.market == SPOT for offer in by_id.values()) else []
        )
    limit = max(1, ceil(config.spot_share_of_one * (spots + 1)))
    in_zone: Counter[tuple[str, str]] = Counter()
    for market, name, _ in placed:
        if market == SPOT and name in by_id:
            in_zone[by_id[name].type, by_id[name].zone] += 1
    spread = [offer for offer in left if offer.market != SPOT or in_zone[offer.type, offer.zone] < limit]
    return spread if any(offer.market == SPOT for offer in spread) else left


def _nearest(
    offers: Sequence[Offer], pool: Pool, placed: Sequence[Placed], costs: Mapping[str, float], config: ScalingConfig
) -> Offer:
    """The cheapest offer, or the cheapest of those nearest to the demand when it is not much dearer."""
    cheapest = min(offers, key=lambda offer: (costs[offer.id], offer.id))
    region = most_underserved(pool.demand_by_region, (place for _, _, place in placed))
    if not region:
        return cheapest
    distances = {offer.id: distance_km(region, offer.region, config.places) for offer in offers}
    near = min(offers, key=lambda offer: (distances[offer.id], costs[offer.id], offer.id))
    return near if costs[near.id] <= costs[cheapest.id] * (1.0 + config.near_premium) else cheapest


def choose_drains(
    pool: Pool, count: int, staying: Sequence[Node], config: ScalingConfig, now: float
) -> tuple[str, ...]:
    """Ids of at most `count` nodes to drain: idle, old enough and managed; the dearest and farthest first.

    The on-demand floor holds among the nodes that stay: with each spot node that goes, fewer have to be on demand.
    """
    free = [
        node
        for node in staying
        if node.state == READY and not node.running and node.managed and now - node.launched_at >= config.min_life_s
    ]
    rented = sum(1 for node in staying if node.market != OWN)
    spots = sum(1 for node in staying if node.market == SPOT)
    origins = pool.demand_by_region

    def order(node: Node) -> tuple[float, bool, float, str]:
        return -node.price_usd_h, node.region in origins, -node.launched_at, node.id

    on_demand = sorted((node for node in free if node.market not in (OWN, SPOT)), key=order, reverse=True)
    others = sorted((node for node in free if node.market in (OWN, SPOT)), key=order, reverse=True)
    chosen: list[str] = []
    while len(chosen) < count:
        floor_holds = not spots or rented - 1 - spots >= ceil(config.on_demand_floor * (rented - 1))
        groups = [group for group in (on_demand if floor_holds else [], others) if group]
        if not groups:
            break
        node = min(groups, key=lambda group: order(group[-1])).pop()
        spots -= node.market == SPOT
        rented -= node.market != OWN
        chosen.append(node.id)
    return tuple(chosen)
