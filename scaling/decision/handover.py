"""Clamps the memory that a previous leader left to the local clock: no remembered time lies in the future. Pure.

A clock that was set back, or another machine's that runs ahead, would otherwise keep windows shut and breakers open
until the time it had noted. A clock that jumped forward makes windows end early, once.
"""

from __future__ import annotations

from dataclasses import replace

from scaling.decision.breakers import longest_pause_s
from scaling.domain.config import ScalingConfig
from scaling.domain.model import Breaker, Memory, PoolMemory


def clamp_to_clock(memory: Memory, config: ScalingConfig, now: float) -> Memory:
    """`memory` with no time later than `now`, and no breaker open for longer than breakers stay open."""
    latest = now + longest_pause_s(config)
    breakers = {
        offer: Breaker(breaker.failures, min(breaker.open_until, latest)) for offer, breaker in memory.breakers.items()
    }
    return Memory({name: _clamped_pool(pool, now) for name, pool in memory.pools.items()}, breakers)


def _clamped_pool(pool: PoolMemory, now: float) -> PoolMemory:
    return replace(
        pool,
        max_needs=tuple((min(at, now), nodes) for at, nodes in pool.max_needs),
        min_needs=tuple((min(at, now), nodes) for at, nodes in pool.min_needs),
        last_scale_in_at=min(pool.last_scale_in_at, now),
        last_work_at=min(pool.last_work_at, now),
        last_peak_at=min(pool.last_peak_at, now),
    )
