"""What another master left, made fit for this one's clock: nothing that is remembered lies in the future. Pure.

A clock that was set back, or another machine's that runs ahead, would otherwise keep windows shut and offers shunned
until the time it had told. One that jumped forward makes windows end early, once.
"""

from __future__ import annotations

from dataclasses import replace

from scaling.decision.breakers import longest_pause_s
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Breaker, Memory, PoolMemory


def recalled(memory: Memory, config: ScalingConfig, now: float) -> Memory:
    """The same memory, with no time later than `now`, and no pause longer than a breaker makes."""
    longest = now + longest_pause_s(config)
    breakers = {offer: Breaker(one.failures, min(one.shunned_until, longest)) for offer, one in memory.breakers.items()}
    return Memory({name: _pool(one, now) for name, one in memory.pools.items()}, breakers)


def _pool(one: PoolMemory, now: float) -> PoolMemory:
    return replace(
        one,
        needs=tuple((min(at, now), nodes) for at, nodes in one.needs),
        lows=tuple((min(at, now), nodes) for at, nodes in one.lows),
        lowered_at=min(one.lowered_at, now),
        asked_at=min(one.asked_at, now),
        peak_at=min(one.peak_at, now),
    )
