"""Damping: turns the number of nodes needed into the next step, by votes, windows and step limits. Pure.

Scale-in goes to the highest need within its window, and not twice within it, so directions can't alternate faster than
that. Each direction needs its votes in a row. Noise in the load therefore starts and ends no nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from scaling.domain.config import ScalingConfig
from scaling.domain.model import PoolMemory
from scaling.domain.units import counted


@dataclass(frozen=True, slots=True)
class Step:
    """The number of nodes to go to, and why not further."""

    target: int
    reason: str


def step(
    need: int, have: int, urgent: bool, trusted: bool, memory: PoolMemory, config: ScalingConfig, now: float
) -> tuple[Step, PoolMemory]:
    """(the next step from `have` to `need` nodes, what to remember).

    `urgent`: there is work and no node, which waits for no votes. `trusted`: a trusted forecast has looked ahead.
    """
    window_s = config.trusted_down_window_s if trusted else config.down_window_s
    keep_s = max(config.down_window_s, config.trusted_down_window_s)
    max_needs = (*((at, nodes) for at, nodes in memory.max_needs if at > now - keep_s and nodes > need), (now, need))
    min_needs = (
        *((at, nodes) for at, nodes in memory.min_needs if at > now - config.up_window_s and nodes < need),
        (now, need),
    )
    up = memory.up_votes + 1 if need > have else 0
    down = memory.down_votes + 1 if need < have else 0
    after = replace(memory, max_needs=max_needs, min_needs=min_needs, up_votes=up, down_votes=down)
    if need > have:
        return _up(need, have, urgent, up, min_needs[0][1], config), after
    if need == have:
        return Step(have, f"no change: the need is {counted(have, 'node')}"), after
    votes_needed = config.trusted_down_votes if trusted else config.down_votes
    highest = next(nodes for at, nodes in max_needs if at > now - window_s or at == now)
    taken = _down(need, have, highest, window_s, down, votes_needed, config)
    if taken.target < have:
        passed_s = now - memory.last_scale_in_at
        if passed_s < window_s:
            return Step(have, f"no scale-in: {passed_s:.0f} s since the last one, the window is {window_s:g} s"), after
        after = replace(after, last_scale_in_at=now)
    return taken, after


def _up(need: int, have: int, urgent: bool, votes: int, lowest: int, config: ScalingConfig) -> Step:
    """`lowest`: the lowest need within the scale-out window."""
    if urgent:
        target = min(need, have + config.max_step_up_nodes)
        return Step(
            target, f"scale out to {counted(target, 'node')} without waiting for votes: there is work and no node"
        )
    if votes < config.up_votes:
        return Step(have, f"no scale-out yet: vote {votes} of {config.up_votes}")
    target = max(have, min(lowest, have + config.max_step_up_nodes))
    if lowest <= have:
        return Step(have, f"no scale-out yet: more nodes were not needed throughout the last {config.up_window_s:g} s")
    if target < lowest:
        most = config.max_step_up_nodes
        return Step(
            target, f"scale out from {have} to {target} of {counted(lowest, 'node')}: a decision starts at most {most}"
        )
    return Step(target, f"scale out from {have} to {counted(target, 'node')}")


def _down(
    need: int, have: int, highest: int, window_s: float, votes: int, votes_needed: int, config: ScalingConfig
) -> Step:
    """`highest`: the highest need within the scale-in window."""
    if votes < votes_needed:
        return Step(have, f"no scale-in yet: vote {votes} of {votes_needed}")
    if highest >= have:
        return Step(have, f"no scale-in yet: the need was {counted(highest, 'node')} within the last {window_s:g} s")
    target = max(highest, have - config.max_step_down_nodes)
    if target > highest:
        most = config.max_step_down_nodes
        return Step(
            target,
            f"scale in from {have} to {target} instead of {counted(highest, 'node')}: a decision drains at most {most}",
        )
    if highest > need:
        return Step(
            target, f"scale in from {have} to {counted(target, 'node')}, the highest need within {window_s:g} s"
        )
    return Step(target, f"scale in from {have} to {counted(target, 'node')}")
