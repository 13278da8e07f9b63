"""What was spent and what there is to count: small sums that decide about money. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec.structs import replace

from scaling.domain.units import DAY_S, HOUR_S
from scaling.state.memory import State

#: A gap in the books longer than this is not charged: nobody knows what ran then, seconds.
LONGEST_GAP_S = 6 * HOUR_S


def spent(state: State, running_usd_h: float, now: float) -> State:
    """The books after another look: what runs has run since the last one."""
    day, month = int(now // DAY_S), _month(now)
    passed_s = min(max(0.0, now - state.at), LONGEST_GAP_S) if state.at else 0.0
    usd = running_usd_h * passed_s / HOUR_S
    today = usd + (state.spent_usd if day == state.day else 0.0)
    this_month = usd + (state.month_usd if month == state.month else 0.0)
    return replace(state, at=now, spent_usd=today, day=day, month_usd=this_month, month=month)


def month_forecast_usd(state: State, running_usd_h: float, now: float) -> float:
    """What this month will have cost when what runs now runs to its end."""
    at = datetime.fromtimestamp(now, UTC)
    end = datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC)
    so_far = state.month_usd if state.month == _month(now) else 0.0
    return so_far + running_usd_h * (end - at).total_seconds() / HOUR_S


def _month(now: float) -> int:
    at = datetime.fromtimestamp(now, UTC)
    return (at.year - 1970) * 12 + at.month - 1
