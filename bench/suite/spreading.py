"""How a workload scales from one node to many: throughput, efficiency, and where the rest went.

Of each benchmark the first part, so many tasks for each node that every one of its slots is busy several times over,
all submitted at once. Node-seconds are accounted for: useful (what the tasks took on one node alone), slower (what
they took longer than that: nodes of one machine share its cores, caches and memory), and idle (between tasks, before
the first and after the last).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from bench.measure import BenchFailed
from bench.suite.model import Benchmark, Part
from bench.suite.run import payload_of
from mesh.client import Mesh
from mesh.kinds.table import KINDS
from mesh.lanes import cores_for
from mesh.messages import NodeRecord

#: Tasks for each slot that a task takes.
ROUNDS = 4


@dataclass(frozen=True)
class Ran:
    """One task: where, and when it began and ended, by that node's clock."""

    node: str
    started_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return self.ended_at - self.started_at


@dataclass(frozen=True)
class Step:
    """One number of nodes."""

    nodes: int
    tasks: int
    wall_s: float
    """From the first task's beginning to the last one's end."""
    per_s: float
    efficiency: float
    """Throughput per node, beside that of one node."""
    useful: float
    slower: float
    idle: float
    """Shares of all slot-seconds; they add up to 1."""


def account(ran: Sequence[Ran], slots: int, alone_s: float, one_node_per_s: float) -> Step:
    """What tasks on several nodes come to; `slots`: tasks each node runs at once. Pure.

    `alone_s`: mean run time on one node; `one_node_per_s`: its throughput, 0 for the first step, its own measure.
    Raises: ValueError without tasks.
    """
    nodes = len({one.node for one in ran})
    wall_s = max(one.ended_at for one in ran) - min(one.started_at for one in ran)
    if not nodes or wall_s <= 0:
        raise ValueError("no tasks, or none that took time")
    per_s, every_s = len(ran) / wall_s, nodes * slots * wall_s
    worked_s = sum(one.seconds for one in ran)
    useful_s = min(worked_s, len(ran) * alone_s)
    efficiency = per_s / nodes / (one_node_per_s or per_s)
    shares = useful_s / every_s, (worked_s - useful_s) / every_s, max(0.0, 1.0 - worked_s / every_s)
    return Step(nodes, len(ran), wall_s, per_s, efficiency, *shares)


async def spread(mesh: Mesh, benchmark: Benchmark, nodes: Sequence[NodeRecord], quick: bool) -> list[Step]:
    """One step for each number of nodes. Raises: BenchFailed for a wrong answer or a failed task."""
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
        alone_s = alone_s or mean(one.seconds for one in ran)
        steps.append(account(ran, slots, alone_s, steps[0].per_s if steps else 0.0))
    return steps


async def _round(mesh: Mesh, part: Part, payload: dict[str, Any], nodes: Sequence[NodeRecord], each: int) -> list[Ran]:
    handles = [
        await mesh.start(part.kind, payload, requires={"node": node.id}, max_attempts=1)
        for _ in range(each)
        for node in nodes
    ]
    ran = []
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
    """The same as plain data."""
    return {name: [asdict(step) for step in steps] for name, steps in found.items()}
