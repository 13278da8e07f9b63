"""The status document: what the scaler last observed and decided, for people and programs. Pure.

The leader writes it into KV `scaling`, `status`; the API of every node reads it. Amounts without a limit are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaling.decision import budget
from scaling.decision.policies.cost import refusal
from scaling.domain.model import DRAINING, READY, STARTING, Decision, Offer, Pool
from scaling.log.decision_record import pool_document
from scaling.log.reports import OFF, order_document, sums_document
from scaling.observation.collect import Cycle


def status_document(
    leader: str, fence: int, cycle: Cycle, decision: Decision, forecast: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """AutoscalerDoc, without what the reading node adds. `forecast`: by pool, from `fitting.document`."""
    return {
        "state": "on" if cycle.policy.enabled else OFF,
        "at": cycle.now,
        "master": leader,
        "fence": fence,
        "policy": cycle.policy.version,
        "pools": [pool_seen(pool) for pool in cycle.snapshot.pools],
        "decision": [pool_document(pool) for pool in decision.pools],
        "forecast": {pool: dict(each) for pool, each in forecast.items()},
        "offers": [_offer(offer, cycle, decision) for offer in cycle.offers],
        "orders": [order_document(intent) for intent in cycle.reconciled.intents.values()],
        "cost": _cost(cycle),
        "panic": cycle.panic,
        "notes": list(cycle.notes),
    }


def pool_seen(pool: Pool) -> dict[str, Any]:
    """PoolSeenDoc. Pure."""
    states = {READY: 0, STARTING: 0, DRAINING: 0}
    for node in pool.nodes:
        states[node.state] += 1
    # Work that arrived before the window, or whose kind has not been timed, is in use and not in the load.
    busy = pool.cpu * states[READY]
    return {
        "pool": pool.name, **states, "managed": sum(1 for node in pool.nodes if node.managed),
        "running": sum(node.running for node in pool.nodes), "queued": pool.queued, "load": max(pool.load, busy),
        "cpu": pool.cpu, "task_s": pool.task_s, "slots": pool.slots, "origins": dict(pool.demand_by_region),
    }  # fmt: skip


def _offer(offer: Offer, cycle: Cycle, decision: Decision) -> dict[str, Any]:
    breakers = cycle.state.memory.breakers
    refused = {pool.name: refusal(offer, pool, breakers, decision.at) for pool in cycle.snapshot.pools}
    return {
        "id": offer.id, "provider": offer.provider, "type": offer.type, "region": offer.region,
        "market": offer.market, "price_usd_h": offer.price_usd_h, "priced_on": offer.priced_on,
        "start_s": offer.start_s, "speed": dict(offer.speed), "available": offer.available,
        "refused": {pool: why for pool, why in refused.items() if why},
    }  # fmt: skip


def _cost(cycle: Cycle) -> dict[str, Any]:
    nodes = {node.id: node for pool in cycle.snapshot.pools for node in pool.nodes}  # a node may be in several pools
    return sums_document(budget.running_usd_h(nodes.values()), cycle.state, cycle.config, cycle.now)
