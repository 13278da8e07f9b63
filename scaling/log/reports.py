"""Reports for people, from what the leader published: whether it is recent, the settings in force, the cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import isinf
from typing import Any

import msgspec

from scaling.decision import budget
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Decision
from scaling.state.memory import State
from scaling.state.orders import Intent
from scaling.state.spend import month_forecast_usd, spending

OFF = "off"
#: A status that is older than this many cycles, plus two calls to a provider, is late.
LATE_CYCLES = 3


def is_late(status: Mapping[str, Any], config: ScalingConfig, now: float) -> bool:
    """Whether the leader should have published a newer status by now."""
    at = status.get("at") if status.get("state") == "on" else None
    return at is None or now - at > LATE_CYCLES * config.decide_every_s + 2 * config.call_timeout_s


def effective_settings(config: ScalingConfig) -> dict[str, Any]:
    """Every setting by name, as JSON has it: null for "no limit"."""
    plain = {setting.name: msgspec.to_builtins(getattr(config, setting.name)) for setting in fields(config)}
    return {name: finite_or_none(value) for name, value in plain.items()}


def finite_or_none(value: Any) -> Any:
    """`value`; None in the place of an infinite one."""
    return None if isinstance(value, float) and isinf(value) else value


def cost_document(
    orders: Sequence[Intent], state: State, config: ScalingConfig, panic: bool, now: float
) -> dict[str, Any]:
    """CostDoc: the paid nodes that run, and the sums the leader keeps.

    `config`: of the policy in force, also while it is off: what was started runs on.
    """
    paid = [order_document(order) for order in orders if order.price_usd_h > 0]
    sums = sums_document(sum(order.price_usd_h for order in orders), state, config, now)
    return {
        "at": state.at or None,
        "running": sorted(paid, key=lambda order: (-order["price_usd_h"], order["at"])),
        **sums,
        "running_usd_minute": sums["running_usd_h"] / 60,
        "panic": panic,
    }


def sums_document(running_usd_h: float, state: State, config: ScalingConfig, now: float) -> dict[str, Any]:
    """BudgetDoc. What was spent is null before the leader has ever counted."""
    spent = spending(state, now)
    room, limit = budget.room_usd_h(running_usd_h, spent.today_usd, config, now)
    counted = state.at > 0
    return {
        "running_usd_h": running_usd_h,
        "spent_today_usd": spent.today_usd if counted else None,
        "spent_month_usd": spent.month_usd if counted else None,
        "month_forecast_usd": month_forecast_usd(state, running_usd_h, now) if counted else None,
        "budget_usd_h": finite_or_none(config.budget_usd_h),
        "budget_usd_day": finite_or_none(config.budget_usd_day),
        "room_usd_h": finite_or_none(room),
        "wall": limit,
    }


def order_document(intent: Intent) -> dict[str, Any]:
    """OrderDoc."""
    return {
        "token": intent.token, "state": intent.state, "provider": intent.provider, "offer": intent.offer,
        "pool": intent.pool, "node": intent.node, "instance": intent.instance, "at": intent.at, "why": intent.why,
        "price_usd_h": intent.price_usd_h,
    }  # fmt: skip


def summary(decision: Decision) -> str:
    """What a decision comes to, pool by pool."""
    parts: list[str] = []
    for pool in decision.pools:
        starts = sum(launch.count for launch in pool.launches)
        parts.append(f"{pool.pool}: {pool.have} -> {pool.target} (start {starts}, drain {len(pool.drains)})")
    return "; ".join(parts)
