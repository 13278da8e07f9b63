"""Spending: what the nodes that ran have cost today and this month. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from msgspec.structs import replace

from scaling.domain.units import DAY_S, HOUR_S
from scaling.state.memory import State

#: Longest time charged between two counts, seconds: after a longer gap nobody knows what ran.
LONGEST_GAP_S = 6 * HOUR_S


def add_spending(state: State, running_usd_h: float, now: float) -> State:
    """`state` after nodes of `running_usd_h` dollars per hour ran since the last count."""
    day, month = int(now // DAY_S), _month(now)
    passed_s = min(max(0.0, now - state.at), LONGEST_GAP_S) if state.at else 0.0
    usd = running_usd_h * passed_s / HOUR_S
    today = usd + (state.spent_usd if day == state.day else 0.0)
    this_month = usd + (state.month_usd if month == state.month else 0.0)
    return replace(state, at=now, spent_usd=today, day=day, month_usd=this_month, month=month)


class Spent(NamedTuple):
    """What was spent in the day and in the month of some moment."""

    today_usd: float
    month_usd: float


def spending(state: State, now: float) -> Spent:
    """What was spent so far today and this month: nothing, if the last count was on an earlier day or in an earlier
    month."""
    is_today, is_this_month = state.day == int(now // DAY_S), state.month == _month(now)
    return Spent(state.spent_usd if is_today else 0.0, state.month_usd if is_this_month else 0.0)


def month_forecast_usd(state: State, running_usd_h: float, now: float) -> float:
    """Cost of the whole month, if the nodes that run now run to its end."""
    at = datetime.fromtimestamp(now, UTC)
    end = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
    so_far = state.month_usd if state.month == _month(now) else 0.0
    return so_far + running_usd_h * (end - at).total_seconds() / HOUR_S


def _month(now: float) -> int:
    at = datetime.fromtimestamp(now, UTC)
    return (at.year - 1970) * 12 + at.month - 1
