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
from scaling.log.reports import finite_or_none
from scaling.observation.collect import Cycle
from scaling.state.orders import Intent
from scaling.state.spend import month_forecast_usd


def status_document(
    leader: str, fence: int, cycle: Cycle, decision: Decision, forecast: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """AutoscalerDoc, without what the reading node adds. `forecast`: by pool, from `fitting.document`."""
    return {
        "state": "on",
        "at": cycle.now,
        "master": leader,
        "fence": fence,
        "policy": cycle.policy.version,
        "pools": [_pool(pool) for pool in cycle.snapshot.pools],
        "decision": [pool_document(pool) for pool in decision.pools],
        "forecast": {pool: dict(each) for pool, each in forecast.items()},
        "offers": [_offer(offer, cycle, decision) for offer in cycle.offers],
        "orders": [_order(intent) for intent in cycle.reconciled.intents.values()],
        "cost": _cost(cycle),
        "panic": cycle.panic,
        "notes": list(cycle.notes),
    }


def _pool(pool: Pool) -> dict[str, Any]:
    states = {READY: 0, STARTING: 0, DRAINING: 0}
    for node in pool.nodes:
        states[node.state] += 1
    return {
        "pool": pool.name, **states, "managed": sum(1 for node in pool.nodes if node.managed),
        "running": sum(node.running for node in pool.nodes), "queued": pool.queued, "load": pool.load,
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


def _order(intent: Intent) -> dict[str, Any]:
    return {
        "token": intent.token, "state": intent.state, "provider": intent.provider, "offer": intent.offer,
        "pool": intent.pool, "node": intent.node, "instance": intent.instance, "at": intent.at, "why": intent.why,
        "price_usd_h": intent.price_usd_h,
    }  # fmt: skip


def _cost(cycle: Cycle) -> dict[str, Any]:
    nodes = {node.id: node for pool in cycle.snapshot.pools for node in pool.nodes}  # a node may be in several pools
    running = budget.running_usd_h(nodes.values())
    room, limit = budget.room_usd_h(running, cycle.state.spent_usd, cycle.config, cycle.now)
    return {
        "running_usd_h": running,
        "spent_today_usd": cycle.state.spent_usd,
        "spent_month_usd": cycle.state.month_usd,
        "month_forecast_usd": month_forecast_usd(cycle.state, running, cycle.now),
        "budget_usd_h": finite_or_none(cycle.config.budget_usd_h),
        "budget_usd_day": finite_or_none(cycle.config.budget_usd_day),
        "room_usd_h": finite_or_none(room),
        "wall": limit,
    }
