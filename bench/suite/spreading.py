"""How a workload scales from one node to many: throughput, efficiency, and how the node-seconds are used.

For the first part of each benchmark, every slot of every node gets several tasks, all submitted at once. Node-seconds
are useful (the time the tasks take on one node alone), slower (the time they take beyond that: nodes on one machine
share its cores, caches and memory), or idle (between tasks, before the first and after the last).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from bench.harness.measure import BenchFailed
from bench.suite.model import Benchmark, Part
from bench.suite.run import payload_of
from mesh.client import Mesh
from mesh.kinds.table import KINDS
from mesh.lanes import cores_for
from mesh.messages import NodeRecord

#: Tasks that each place for a task on a node runs.
ROUNDS = 4


@dataclass(frozen=True)
class Ran:
    """One task: its node, and when it began and ended, by that node's clock."""

    node: str
    started_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        """Its run time."""
        return self.ended_at - self.started_at


@dataclass(frozen=True)
class Step:
    """The result for one number of nodes."""

    nodes: int
    tasks: int
    wall_s: float
    """From the beginning of the first task to the end of the last."""
    per_s: float
    efficiency: float
    """Throughput per node over the throughput of one node."""
    useful: float
    slower: float
    idle: float
    """`useful`, `slower` and `idle` are shares of all slot-seconds; they add up to 1."""


def account(ran: Sequence[Ran], slots: int, alone_s: float, one_node_per_s: float) -> Step:
    """The result of tasks on several nodes. `slots`: tasks that each node runs at the same time. Pure.

    `alone_s`: mean run time on one node; `one_node_per_s`: the throughput of one node, 0 for the first step itself.
    Raises: ValueError without tasks.
    """
    nodes = len({task.node for task in ran})
    wall_s = max(task.ended_at for task in ran) - min(task.started_at for task in ran)
    if not nodes or wall_s <= 0:
        raise ValueError("there are no tasks, or they took no time")
    per_s, total_s = len(ran) / wall_s, nodes * slots * wall_s
    worked_s = sum(task.seconds for task in ran)
    useful_s = min(worked_s, len(ran) * alone_s)
    efficiency = per_s / nodes / (one_node_per_s or per_s)
    shares = useful_s / total_s, (worked_s - useful_s) / total_s, max(0.0, 1.0 - worked_s / total_s)
    return Step(nodes, len(ran), wall_s, per_s, efficiency, *shares)


async def spread(mesh: Mesh, benchmark: Benchmark, nodes: Sequence[NodeRecord], quick: bool) -> list[Step]:
    """Measure each number of nodes, from one to all. Raises: BenchFailed for a wrong answer or a failed task."""
    part = benchmark.parts[0]
    payload = payload_of(part, quick)
    if part.make is not None:
        payload = await asyncio.to_thread(part.make, payload)
    slots = min(node.slots // cores_for({}, KINDS[part.kind].resources.cores, node.slots) for node in nodes)
    steps: list[Step] = []
    # The first round loads libraries and models.
    await _round(mesh, part, payload, nodes, slots)
    alone_s = 0.0
    for count in range(1, len(nodes) + 1):
        ran = await _round(mesh, part, payload, nodes[:count], ROUNDS * slots)
        alone_s = alone_s or mean(task.seconds for task in ran)
        steps.append(account(ran, slots, alone_s, steps[0].per_s if steps else 0.0))
    return steps


async def _round(mesh: Mesh, part: Part, payload: dict[str, Any], nodes: Sequence[NodeRecord], each: int) -> list[Ran]:
    handles = [
        await mesh.start(part.kind, payload, requires={"node": node.id}, max_attempts=1)
        for _ in range(each)
        for node in nodes
    ]
    ran: list[Ran] = []
    for handle in handles:
        end = await handle.end()
        if end.state != "done":
            raise BenchFailed(f"{part.kind}: {end.error.message if end.error else end.state}")
        result = dict(end.info) if end.content_type else dict(await mesh.value(end))
        if wrong := part.verify(payload, result):
            raise BenchFailed(f"{part.kind} gave a wrong answer on {end.node}: {wrong}")
        ran.append(Ran(end.node, end.started_at, end.ended_at))
    return ran


def document(found: dict[str, list[Step]]) -> dict[str, Any]:
    """The steps as plain data."""
    return {name: [asdict(step) for step in steps] for name, steps in found.items()}
