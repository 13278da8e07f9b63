"""What the scaler last saw and decided, as the document that people and programs are shown. Pure.

Written by the master into KV `scaling`, `status`; read by every node's API. Amounts without a limit are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scaling.decision import budget
from scaling.decision.policies.cost import refusal
from scaling.domain.model import Decision, Offer, Pool
from scaling.log.decision_record import pool_document
from scaling.log.reports import finite
from scaling.observation.collect import Cycle
from scaling.state.spend import month_forecast_usd


def status_document(
    me: str, fence: int, seen: Cycle, made: Decision, forecast: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """AutoscalerDoc, but for what the reading node adds. `forecast`: by pool, from `fitting.document`."""
    nodes = {node.id: node for pool in seen.seen.pools for node in pool.nodes}
    running = budget.running_usd_h(nodes.values())
    room, wall = budget.room_usd_h(running, seen.state.spent_usd, seen.config, seen.now)
    return {
        "state": "on",
        "at": seen.now,
        "master": me,
        "fence": fence,
        "policy": seen.policy.version,
        "pools": [_pool(one) for one in seen.seen.pools],
        "decision": [pool_document(one) for one in made.pools],
        "forecast": {pool: dict(told) for pool, told in forecast.items()},
        "offers": [_offer(one, seen, made) for one in seen.offers],
        "orders": [
            {
                "token": one.token, "state": one.state, "provider": one.provider, "offer": one.offer,
                "pool": one.pool, "node": one.node, "instance": one.instance, "at": one.at, "why": one.why,
                "price_usd_h": one.price_usd_h,
            }
            for one in seen.found.intents.values()
        ],
        "cost": {
            "running_usd_h": running,
            "spent_today_usd": seen.state.spent_usd,
            "spent_month_usd": seen.state.month_usd,
            "month_forecast_usd": month_forecast_usd(seen.state, running, seen.now),
            "budget_usd_h": finite(seen.config.budget_usd_h),
            "budget_usd_day": finite(seen.config.budget_usd_day),
            "room_usd_h": finite(room),
            "wall": wall,
        },
        "panic": seen.panic,
        "notes": list(seen.notes),
    }  # fmt: skip


def _pool(one: Pool) -> dict[str, Any]:
    states: dict[str, int] = {"ready": 0, "starting": 0, "draining": 0}
    for node in one.nodes:
        states[node.state] += 1
    return {
        "pool": one.name, **states, "managed": sum(1 for node in one.nodes if node.managed),
        "running": sum(node.running for node in one.nodes), "queued": one.queued, "load": one.load, "cpu": one.cpu,
        "task_s": one.task_s, "slots": one.slots, "origins": dict(one.demand_by_region),
    }  # fmt: skip


def _offer(one: Offer, seen: Cycle, made: Decision) -> dict[str, Any]:
    breakers = seen.state.memory.breakers
    why = {pool.name: refusal(one, pool, breakers, made.at) for pool in seen.seen.pools}
    return {
        "id": one.id, "provider": one.provider, "type": one.type, "region": one.region, "market": one.market,
        "price_usd_h": one.price_usd_h, "priced_on": one.priced_on, "start_s": one.start_s,
        "speed": dict(one.speed), "available": one.available,
        "refused": {pool: text for pool, text in why.items() if text},
    }  # fmt: skip
