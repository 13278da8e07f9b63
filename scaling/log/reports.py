"""Reports for people, from what the leader published: whether it is recent, the settings in force, the cost. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import isinf
from typing import Any

import msgspec

from scaling.domain.config import ScalingConfig
from scaling.domain.model import Decision

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


def cost_document(status: Mapping[str, Any], panic: bool) -> dict[str, Any]:
    """CostDoc: the paid nodes that run, and the sums the leader keeps."""
    sums: dict[str, Any] = dict(status.get("cost") or _NO_COST)
    paid = [order for order in status.get("orders", ()) if order["price_usd_h"] > 0]
    return {
        "at": status.get("at"),
        "running": sorted(paid, key=lambda order: (-order["price_usd_h"], order["at"])),
        **sums,
        "running_usd_minute": sums["running_usd_h"] / 60,
        "panic": panic,
    }


_NO_COST: dict[str, Any] = {
    "running_usd_h": 0.0, "spent_today_usd": 0.0, "spent_month_usd": 0.0, "month_forecast_usd": 0.0,
    "budget_usd_h": None, "budget_usd_day": None, "room_usd_h": None, "wall": "",
}  # fmt: skip


def summary(decision: Decision) -> str:
    """What a decision comes to, pool by pool."""
    parts: list[str] = []
    for pool in decision.pools:
        starts = sum(launch.count for launch in pool.launches)
        parts.append(f"{pool.pool}: {pool.have} -> {pool.target} (start {starts}, drain {len(pool.drains)})")
    return "; ".join(parts)
