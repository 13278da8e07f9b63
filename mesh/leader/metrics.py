"""The load of the mesh, one sample a kind, region of origin and minute: what forecasts learn from. Pure.

Ends are counted from the tasks each node says it has counted; arrivals are what ended plus what the queue grew, so that
a task delivered twice is not counted twice. Nodes don't count by origin: a kind's ends are shared out among regions
as its lanes' deliveries are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mesh.lanes import Lane, is_open, region_of
from mesh.membership.member import ALIVE, Member

#: The pool of what any node may take, wherever it comes from.
OPEN = ""
#: (kind, pool of lanes or OPEN)
Work = tuple[str, str]
#: (kind, region of origin)
Key = tuple[str, str]


@dataclass(frozen=True)
class Memory:
    """What the last sample saw."""

    at: float = 0.0
    """Unix seconds; 0 before the first one."""
    ended: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """(node, incarnation, kind) -> tasks counted"""
    depth: Mapping[Key, int] = field(default_factory=dict)
    """Waiting and delivered tasks."""
    delivered: Mapping[Lane, int] = field(default_factory=dict)
    """Deliveries of each lane so far."""


class Sample(msgspec.Struct, frozen=True):
    """A sample as readers of METRICS take it; fields they don't know are left out."""

    kind: str
    at: float
    """Unix seconds by the clock of the master that made it: the end of what it tells of."""
    interval_s: float
    arrivals: int
    ends: int
    work_s: float
    """Seconds that those which ended took."""
    region: str = ""
    pools: dict[str, float] = {}
    """Pool of lanes -> its share of the arrivals, of those that asked for a region, labels, a node, a larger machine.
    The rest any node may take."""
    fence: int = 0
    """Of that master."""

    @property
    def pool_shares(self) -> dict[str, float]:
        """`pools`, and under OPEN what any node may take."""
        return {OPEN: max(0.0, 1.0 - sum(self.pools.values())), **self.pools}


decode_sample = msgspec.msgpack.Decoder(Sample).decode


def sample(
    lanes: Mapping[Lane, tuple[int, int, int]], members: Iterable[Member], before: Memory, now: float
) -> tuple[list[dict[str, Any]], Memory]:
    """One sample a kind and region, and the memory for the next one; none on the first call, which only counts.

    `lanes`: lane -> (waiting, delivered and not acknowledged, deliveries so far).
    """
    waiting: dict[Key, int] = defaultdict(int)
    running: dict[Key, int] = defaultdict(int)
    moved: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    limited: dict[Key, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for lane, (pending, unacknowledged, delivered) in lanes.items():
        kind, region = lane[0], region_of(lane[1])
        waiting[kind, region] += pending
        running[kind, region] += unacknowledged
        was = before.delivered.get(lane, 0)
        # Less than before: the lane was removed in between, and made anew.
        new = delivered - was if delivered >= was else delivered
        moved[kind][region] += new
        if new and not is_open(lane[1]):
            limited[kind, region][lane[1]] += new
    ended, ends, seconds, slots = _ended(members, before)
    depth = {key: waiting[key] + running[key] for key in waiting}
    shared = {
        (kind, region): count
        for kind, total in ends.items()
        for region, count in shares(total, moved[kind] or {"": 1}).items()
    }
    samples = [
        {
            "kind": kind,
            "region": region,
            "at": now,
            "interval_s": now - before.at,
            "queued": waiting[kind, region],
            "running": running[kind, region],
            "arrivals": max(
                0, shared.get((kind, region), 0) + depth.get((kind, region), 0) - before.depth.get((kind, region), 0)
            ),
            "ends": shared.get((kind, region), 0),
            "work_s": seconds[kind] * shared.get((kind, region), 0) / (ends[kind] or 1),
            "slots": slots,
            "pools": {pool: new / moved[kind][region] for pool, new in limited[kind, region].items()},
        }
        for kind, region in sorted(depth.keys() | before.depth.keys() | shared.keys())
    ]
    made = {lane: delivered for lane, (_, _, delivered) in lanes.items()}
    return (samples if before.at else []), Memory(now, ended, depth, made)


def _ended(
    members: Iterable[Member], before: Memory
) -> tuple[dict[tuple[str, str, str], int], dict[str, int], dict[str, float], int]:
    """(what each node has counted, kind -> tasks that ended since, kind -> seconds they took, slots there are)."""
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
    return ended, ends, seconds, slots


def shares(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """`total` in whole parts, as near to the ratio of `weights` as they come; all to the first when all are 0."""
    whole = sum(weights.values())
    names = sorted(weights)
    if not whole:
        return {name: total * (name == names[0]) for name in names}
    parts, given, so_far = {}, 0, 0
    for name in names:
        so_far += weights[name]
        parts[name] = total * so_far // whole - given
        given += parts[name]
    return parts
