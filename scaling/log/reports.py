"""How what the master wrote down reads for people: whether it is fresh, the settings in force, the bill. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import isinf
from typing import Any

import msgspec

from scaling.domain.config import ScalingConfig
from scaling.domain.model import Decision

OFF = "off"
#: A status older than so many looks, and the longest wait for a provider, is late.
LATE_LOOKS = 3


def is_late(told: Mapping[str, Any], config: ScalingConfig, now: float) -> bool:
    """Whether the master should have looked again by now."""
    at = told.get("at") if told.get("state") == "on" else None
    return at is None or now - at > LATE_LOOKS * config.decide_every_s + 2 * config.call_timeout_s


def settings_of(config: ScalingConfig) -> dict[str, Any]:
    """Every setting by name, as JSON has it: null for "no limit"."""
    plain = {one.name: msgspec.to_builtins(getattr(config, one.name)) for one in fields(config)}
    return {name: finite(value) for name, value in plain.items()}


def finite(value: Any) -> Any:
    """`value`, and null in the place of an infinite one."""
    return None if isinstance(value, float) and isinf(value) else value


def bill(told: Mapping[str, Any], panic: bool) -> dict[str, Any]:
    """CostDoc: what runs and is paid for, and the sums the master keeps."""
    sums = dict(told.get("cost") or _NOTHING)
    paid = [one for one in told.get("orders", ()) if one["price_usd_h"] > 0]
    return {
        "at": told.get("at"),
        "running": sorted(paid, key=lambda one: (-one["price_usd_h"], one["at"])),
        **sums,
        "running_usd_minute": sums["running_usd_h"] / 60,
        "panic": panic,
    }


_NOTHING = {
    "running_usd_h": 0.0, "spent_today_usd": 0.0, "spent_month_usd": 0.0, "month_forecast_usd": 0.0,
    "budget_usd_h": None, "budget_usd_day": None, "room_usd_h": None, "wall": "",
}  # fmt: skip


def in_words(made: Decision) -> str:
    """What a decision comes to, pool by pool."""
    parts = []
    for one in made.pools:
        starts = sum(launch.count for launch in one.launches)
        parts.append(f"{one.pool}: {one.have} -> {one.target} (start {starts}, drain {len(one.drains)})")
    return "; ".join(parts)
