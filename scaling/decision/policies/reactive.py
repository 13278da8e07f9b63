"""How many nodes what is seen now needs: use of capacity, waiting tasks, seconds of backlog. Pure.

Between `cpu_down` and `cpu_up` it wants what is there: a dead band, so that small changes move nothing. More load, more
waiting tasks or higher use never make it want fewer.
"""

from __future__ import annotations

from scaling.domain.config import ScalingConfig
from scaling.domain.model import Pool, Proposal
from scaling.domain.units import whole_nodes


def propose(pool: Pool, have: int, ready: int, config: ScalingConfig, trusted: bool) -> Proposal:
    """What `pool` needs by what is seen. `have`: nodes that are ready or starting; `ready`: those that work.

    `trusted`: a forecast looks ahead, so only the load itself and `seen_headroom` are asked for, without a dead band.
    """
    seen = max(pool.load, pool.cpu * ready)
    over = pool.queued > config.queue_target_tasks * max(ready, 1)
    backlog = backlog_nodes(pool, config) if over else 0.0
    sized = whole_nodes((seen + backlog) * (1.0 + (config.seen_headroom if trusted else config.headroom)))
    if over:
        each = pool.queued / max(ready, 1)
        why = f"{pool.queued} tasks wait ({each:.0f} a node, target {config.queue_target_tasks:g})"
        return Proposal("reactive", max(have, sized), f"{why}, load {seen:.2f}: {sized} nodes")
    if trusted:
        return Proposal("reactive", sized, f"load {seen:.2f} is seen: {sized} nodes")
    use = seen / have if have else (2.0 if seen > 0 else 0.0)
    if use > config.cpu_up:
        sized = max(have, sized)
        return Proposal("reactive", sized, f"use {use:.0%} is over {config.cpu_up:.0%}: {sized} nodes")
    if use < config.cpu_down or not have:
        sized = min(have, sized)
        return Proposal("reactive", sized, f"use {use:.0%} is under {config.cpu_down:.0%}: {sized} nodes")
    return Proposal("reactive", have, f"use {use:.0%} is between {config.cpu_down:.0%} and {config.cpu_up:.0%}")


def backlog_nodes(pool: Pool, config: ScalingConfig) -> float:
    """Nodes that work off what waits within `backlog_target_s`; by the number of tasks where none has been timed."""
    if pool.task_s > 0:
        return pool.queued * pool.task_s / max(1, pool.slots) / config.backlog_target_s
    return pool.queued / config.queue_target_tasks
