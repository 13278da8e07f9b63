"""What the next decision has to know, whichever leader makes it: votes, windows, spending, journal numbers. Pure."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from mesh.decoding import Decoder
from scaling.decision.handover import clamp_to_clock
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Memory


class State(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `scaling`, `state`. Written by the leader in each cycle, over the revision it has read."""

    memory: Memory = msgspec.field(default_factory=Memory)
    spent_usd: float = 0.0
    """Spent on `day`, by the nodes that ran."""
    day: int = -1
    """Days since 1970."""
    at: float = 0.0
    """When the spending was last counted."""
    starts_s: dict[str, float] = {}
    """offer -> how long its nodes took to join, a running mean"""
    speeds: dict[str, dict[str, float]] = {}
    """offer -> kind -> tasks per hour that its nodes did"""
    decisions: tuple[int, ...] = ()
    """Numbers of the last journaled decisions, the newest last."""
    month_usd: float = 0.0
    """Spent in `month`."""
    month: int = -1
    """Months since 1970."""


def handed_over(state: State, config: ScalingConfig, now: float) -> State:
    """The previous leader's state with all timestamps clamped to the local clock, `now`."""
    return replace(state, memory=clamp_to_clock(state.memory, config, now), at=min(state.at, now))


encode_state = msgspec.msgpack.Encoder().encode
decode_state: Decoder[State] = Decoder(State, "state of the scaler")
