"""The load of the mesh, one sample a kind and minute: what forecasts learn from. Pure.

Ends are counted from the tasks each node says it has counted; arrivals are what ended plus what the queue grew,
so that a task delivered twice is not counted twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.membership import ALIVE
from mesh.placement import Member


@dataclass(frozen=True)
class Memory:
    """What the last sample saw."""

    at: float = 0.0
    """Unix seconds; 0 before the first one."""
    ended: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """(node, incarnation, kind) -> tasks counted"""
    depth: Mapping[str, int] = field(default_factory=dict)
    """kind -> waiting and delivered tasks"""


def sample(
    lanes: Mapping[tuple[str, str, str], tuple[int, ...]],
    members: Iterable[Member],
    before: Memory,
    now: float,
) -> tuple[list[dict[str, Any]], Memory]:
    """One sample a kind, and the memory for the next one; none on the first call, which only counts.

    `lanes`: (kind, pool, urgency) -> (waiting, delivered and not acknowledged, …).
    """
    waiting: dict[str, int] = defaultdict(int)
    running: dict[str, int] = defaultdict(int)
    for (kind, _, _), (pending, unacknowledged, *_rest) in lanes.items():
        waiting[kind] += pending
        running[kind] += unacknowledged
    ended: dict[tuple[str, str, str], int] = {}
    seconds: dict[str, float] = defaultdict(float)
    ends: dict[str, int] = defaultdict(int)
    slots = 0
    for one in members:
        slots += one.record.slots if one.state in ALIVE else 0
        for kind, (mean_s, tasks) in one.rates.items():
            key = (one.record.id, one.record.incarnation, kind)
            new = max(0, tasks - before.ended.get(key, 0))
            ended[key] = tasks
            ends[kind] += new
            seconds[kind] += new * mean_s
    depth = {kind: waiting[kind] + running[kind] for kind in waiting}
    samples = [
        {
            "kind": kind,
            "region": "",
            "at": now,
            "interval_s": now - before.at,
            "queued": waiting[kind],
            "running": running[kind],
            "arrivals": max(0, ends[kind] + depth.get(kind, 0) - before.depth.get(kind, 0)),
            "ends": ends[kind],
            "work_s": seconds[kind],
            "slots": slots,
        }
        for kind in sorted(depth.keys() | before.depth.keys() | ends.keys())
    ]
    return (samples if before.at else []), Memory(now, ended, depth)
