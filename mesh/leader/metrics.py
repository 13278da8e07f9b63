"""Load samples of the mesh, one per kind, region of origin and minute; forecasts learn from them. Pure.

Ends are the differences of the nodes' own task counters. Arrivals are the ends plus the growth of the queue, so that a
task that is delivered twice counts once. Nodes don't count by origin: the ends of a kind are distributed over the
regions in proportion to the deliveries of its lanes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from mesh.decoding import Decoder
from mesh.lanes import Lane, is_open, region_of
from mesh.membership.member import ALIVE, Member

#: The pool of work that any node may take, of any origin.
OPEN = ""
#: (kind, pool of lanes or OPEN)
Work = tuple[str, str]
#: (kind, region of origin)
Key = tuple[str, str]


@dataclass(frozen=True)
class Memory:
    """The counters at the previous sample."""

    at: float = 0.0
    """Unix seconds; 0 before the first one."""
    ended: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    """(node, incarnation, kind) -> number of tasks counted by the node"""
    depth: Mapping[Key, int] = field(default_factory=dict)
    """Waiting tasks plus delivered and unacknowledged ones."""
    delivered: Mapping[Lane, int] = field(default_factory=dict)
    """Lane -> its deliveries so far."""


class Sample(msgspec.Struct, frozen=True):
    """A sample as readers of METRICS decode it; fields that they don't need are left out."""

    kind: str
    at: float
    """End of the interval, Unix seconds by the clock of the bus."""
    interval_s: float
    arrivals: int
    ends: int
    work_s: float
    """Total run time of the tasks that ended, seconds."""
    region: str = ""
    pools: dict[str, float] = {}
    """Pool -> its share of the arrivals, for tasks with requirements (a region, labels, a node, a larger machine). Any
    node may take the rest."""
    fence: int = 0
    """The fence of the leader that made it."""

    @property
    def pool_shares(self) -> dict[str, float]:
        """`pools`, and under OPEN the share that any node may take."""
        return {OPEN: max(0.0, 1.0 - sum(self.pools.values())), **self.pools}


decode_sample: Decoder[Sample] = Decoder(
    Sample, "sample", lambda found: "" if math.isfinite(found.at + found.work_s) else "its times are no numbers"
)


def sample(
    lanes: Mapping[Lane, tuple[int, int, int]], members: Iterable[Member], before: Memory, now: float
) -> tuple[list[dict[str, Any]], Memory]:
    """(one sample per kind and region, the memory for the next call); the first call returns no samples.

    `lanes`: lane -> (waiting, delivered and not acknowledged, deliveries so far); `now`: Unix seconds.
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
        # A smaller number means that the lane was removed and declared again in between.
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
    deliveries = {lane: delivered for lane, (_, _, delivered) in lanes.items()}
    return (samples if before.at else []), Memory(now, ended, depth, deliveries)


def _ended(
    members: Iterable[Member], before: Memory
) -> tuple[dict[tuple[str, str, str], int], dict[str, int], dict[str, float], int]:
    """(the counters of each node, kind -> tasks ended since `before`, kind -> their run time in seconds, all slots)"""
    ended: dict[tuple[str, str, str], int] = {}
    seconds: dict[str, float] = defaultdict(float)
    ends: dict[str, int] = defaultdict(int)
    slots = 0
    for member in members:
        slots += member.record.slots if member.state in ALIVE else 0
        for kind, (mean_s, tasks) in member.rates.items():
            key = (member.record.id, member.record.incarnation, kind)
            new = max(0, tasks - before.ended.get(key, 0))
            ended[key] = tasks
            ends[kind] += new
            seconds[kind] += new * mean_s
    return ended, ends, seconds, slots


def shares(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """`total` as integer shares in proportion to `weights`; all of it to the first name when all weights are 0."""
    whole = sum(weights.values())
    names = sorted(weights)
    if not whole:
        return {name: total * (name == names[0]) for name in names}
    found: dict[str, int] = {}
    assigned = weight = 0
    for name in names:
        weight += weights[name]
        found[name] = total * weight // whole - assigned
        assigned += found[name]
    return found
