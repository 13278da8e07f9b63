"""What the next decision must know, by whichever master: windows and votes, the books, what was journaled. Pure."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from scaling.decision.handover import recalled
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Memory


class State(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `scaling`, `state`: what the next decision, by whichever master, must know."""

    memory: Memory = msgspec.field(default_factory=Memory)
    spent_usd: float = 0.0
    """Today, by what ran."""
    day: int = -1
    """Days since 1970 that `spent_usd` is of."""
    at: float = 0.0
    starts_s: dict[str, float] = {}
    """offer -> how long its nodes took to join, a running mean"""
    speeds: dict[str, dict[str, float]] = {}
    """offer -> kind -> tasks an hour that its nodes did"""
    decisions: tuple[int, ...] = ()
    """Numbers of the last journaled decisions, the newest last."""
    month_usd: float = 0.0
    month: int = -1
    """Months since 1970 that `month_usd` is of."""


def handed_over(state: State, config: ScalingConfig, now: float) -> State:
    """The previous leader's state, with no timestamp later than the local clock's `now`."""
    return replace(state, memory=recalled(state.memory, config, now), at=min(state.at, now))


encode_state = msgspec.msgpack.Encoder().encode
decode_state = msgspec.msgpack.Decoder(State).decode
