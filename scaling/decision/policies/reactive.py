"""How many nodes the observed load needs: utilization, waiting tasks, seconds of backlog. Pure.

Between `cpu_down` and `cpu_up` it asks for the nodes there are: a dead band, so that small changes move nothing. More
load, more waiting tasks or higher utilization never make it ask for fewer.
"""

from __future__ import annotations

from scaling.domain.config import ScalingConfig
from scaling.domain.model import Pool, Proposal
from scaling.domain.units import counted, whole_nodes


def propose(pool: Pool, have: int, ready: int, config: ScalingConfig, trusted: bool) -> Proposal:
    """The nodes that the load of `pool` needs. `have`: nodes that are ready or starting; `ready`: those that work.

    `trusted`: a forecast looks ahead, so the proposal is the load plus `seen_headroom`, without a dead band.
    """
    load = max(pool.load, pool.cpu * ready)
    has_backlog = pool.queued > config.queue_target_tasks * max(ready, 1)
    backlog = backlog_nodes(pool, config) if has_backlog else 0.0
    nodes = whole_nodes((load + backlog) * (1.0 + (config.seen_headroom if trusted else config.headroom)))
    if has_backlog:
        per_node = pool.queued / max(ready, 1)
        queue = f"queue: {counted(pool.queued, 'task')}, {per_node:.0f} per node (target {config.queue_target_tasks:g})"
        return Proposal("reactive", max(have, nodes), f"{queue}, load {load:.2f}: {counted(nodes, 'node')}")
    if trusted:
        return Proposal("reactive", nodes, f"load {load:.2f}: {counted(nodes, 'node')}")
    utilization = load / have if have else (2.0 if load > 0 else 0.0)
    if utilization > config.cpu_up:
        nodes = max(have, nodes)
        reason = f"utilization {utilization:.0%} is above {config.cpu_up:.0%}: {counted(nodes, 'node')}"
    elif utilization < config.cpu_down or not have:
        nodes = min(have, nodes)
        reason = f"utilization {utilization:.0%} is below {config.cpu_down:.0%}: {counted(nodes, 'node')}"
    else:
        nodes = have
        reason = f"utilization {utilization:.0%} is between {config.cpu_down:.0%} and {config.cpu_up:.0%}: no change"
    return Proposal("reactive", nodes, reason)


def backlog_nodes(pool: Pool, config: ScalingConfig) -> float:
    """Nodes that work off the waiting tasks within `backlog_target_s`; by their number where no task has been timed."""
    if pool.task_s > 0:
        return pool.queued * pool.task_s / max(1, pool.slots) / config.backlog_target_s
    return pool.queued / config.queue_target_tasks
