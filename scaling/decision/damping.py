"""From what is needed to what is done about it: votes, windows, steps. Pure.

What keeps noise from starting and ending nodes: scale-in goes to the most that was needed within its window, and not
twice within it, so that directions can't alternate faster than that; each direction needs its votes in a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from scaling.domain.config import ScalingConfig
from scaling.domain.model import PoolMemory


@dataclass(frozen=True, slots=True)
class Step:
    """Where to go from `have`, and why not further."""

    target: int
    reason: str


def step(
    need: int, have: int, urgent: bool, trusted: bool, memory: PoolMemory, config: ScalingConfig, now: float
) -> tuple[Step, PoolMemory]:
    """What to do about `need` nodes when there are `have`, and what is remembered of it.

    `urgent`: there is work and no node at all, which waits for no vote. `trusted`: a forecast looked ahead.
    """
    window_s = config.trusted_down_window_s if trusted else config.down_window_s
    keep_s = max(config.down_window_s, config.trusted_down_window_s)
    needs = (*(one for one in memory.needs if one[0] > now - keep_s and one[1] > need), (now, need))
    lows = (*(one for one in memory.lows if one[0] > now - config.up_window_s and one[1] < need), (now, need))
    up = memory.up_votes + 1 if need > have else 0
    down = memory.down_votes + 1 if need < have else 0
    after = replace(memory, needs=needs, lows=lows, up_votes=up, down_votes=down)
    if need > have:
        return _up(need, have, urgent, up, lows, config), after
    if need == have:
        return Step(have, f"{have} nodes are what is needed"), after
    wanted = config.trusted_down_votes if trusted else config.down_votes
    most = next(nodes for at, nodes in needs if at > now - window_s or at == now)
    found = _down(need, have, most, window_s, down, wanted, config)
    if found.target < have:
        if now - memory.lowered_at < window_s:
            pause = f"{now - memory.lowered_at:.0f} s since the last scale-in, {window_s:g} s are kept"
            return Step(have, pause), after
        after = replace(after, lowered_at=now)
    return found, after


def _up(
    need: int, have: int, urgent: bool, votes: int, lows: tuple[tuple[float, int], ...], config: ScalingConfig
) -> Step:
    if urgent:
        return Step(min(need, have + config.max_step_up_nodes), "there is work and no node: no vote is waited for")
    if votes < config.up_votes:
        return Step(have, f"vote {votes} of {config.up_votes} to scale out")
    least = lows[0][1]
    target = max(have, min(least, have + config.max_step_up_nodes))
    if least <= have:
        return Step(have, f"not needed throughout the last {config.up_window_s:g} s")
    if target < least:
        return Step(target, f"{least} nodes are needed, {config.max_step_up_nodes} at most are started at once")
    return Step(target, f"from {have} to {target} nodes")


def _down(need: int, have: int, most: int, window_s: float, votes: int, wanted: int, config: ScalingConfig) -> Step:
    if votes < wanted:
        return Step(have, f"vote {votes} of {wanted} to scale in")
    if most >= have:
        return Step(have, f"{most} nodes were needed within the last {window_s:g} s")
    target = max(most, have - config.max_step_down_nodes)
    if target > most:
        return Step(target, f"{most} nodes are enough, {config.max_step_down_nodes} at most are drained at once")
    if most > need:
        return Step(target, f"from {have} to {target} nodes, the most that was needed within {window_s:g} s")
    return Step(target, f"from {have} to {target} nodes")
