"""From what the master knows (lanes, members, orders) to what a decision looks at: pools of nodes and their work. Pure.

A pool of the scaler is what a machine must be: `cpu`, or `gpu` where work asks for an accelerator, each also for a
region that work must stay in (`cpu.eu`). Work that no further node could help with (for one named node, for labels, of
a kind that nothing here can run) is left out, with a note.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mesh.capacity import TOKEN_LABEL
from mesh.kinds.base import Resources
from mesh.lanes import ANY, Lane, is_open, region_of, runs
from mesh.leader.metrics import OPEN, Work
from mesh.membership.member import ALIVE, DRAINING, Member
from scaling.domain.model import DRAINING as NODE_DRAINING
from scaling.domain.model import READY, Node, Offer, Pool
from scaling.state.orders import ENDING, JOINED, Intent, as_node

#: The pool that bounds, baseline, schedule and spares are about.
MAIN = "cpu"
GPU = "gpu"
GPUS = frozenset({"cuda", "rocm", "mps"})


class Arrivals(NamedTuple):
    """What came into each lane between two looks."""

    at: float
    lasted_s: float
    tasks: Mapping[Lane, int]


@dataclass(frozen=True)
class Flow:
    """What is remembered of the lanes, to tell arrivals by."""

    at: float = 0.0
    seen: Mapping[Lane, int] = field(default_factory=dict)
    """Lane -> tasks that ever came into it, as far as its counters tell."""
    window: tuple[Arrivals, ...] = ()


@dataclass(frozen=True)
class Facts:
    """All that is looked at, read a moment ago."""

    lanes: Mapping[Lane, tuple[int, int, int]]
    """lane -> (waiting, delivered and not acknowledged, deliveries so far)"""
    requires: Mapping[str, Mapping[str, Any]]
    """pool of lanes -> what it requires"""
    resources: Mapping[str, Resources]
    """kind -> what a task of it takes"""
    members: Sequence[Member]
    intents: Mapping[str, Intent]
    me: str = ""
    """The node that decides: it does not send itself away while it is the only one."""


@dataclass(frozen=True)
class PoolSnapshot:
    """The pools, and what was left out of them."""

    pools: tuple[Pool, ...]
    notes: tuple[str, ...] = ()
    groups: Mapping[Work, str] = field(default_factory=dict)
    """(kind, pool of lanes), of the lanes there are -> the scaler's pool; "": it was left out."""


def flow(before: Flow, lanes: Mapping[Lane, tuple[int, int, int]], window_s: float, now: float) -> Flow:
    """The memory after another look at the lanes; the first one only counts."""
    seen = {lane: delivered + waiting for lane, (waiting, _, delivered) in lanes.items()}
    if not before.at or now <= before.at:
        return Flow(now, seen, before.window)
    came = {}
    for lane, total in seen.items():
        was = before.seen.get(lane, 0)
        new = total - was if total >= was else total  # fewer: the lane was made anew
        if new:
            came[lane] = new
    window = (*before.window, Arrivals(now, now - before.at, came))
    return Flow(now, seen, tuple(one for one in window if one.at > now - window_s))


def observe(facts: Facts, memory: Flow, offers: Sequence[Offer]) -> PoolSnapshot:
    """One pool at least, the main one, whatever there is."""
    groups, notes = _groups(facts, offers)
    task_s = _task_s(facts)
    pools = []
    for name in sorted({MAIN, *groups.values(), *(one.pool for one in facts.intents.values() if one.pool)}):
        lanes = [lane for lane, group in groups.items() if group == name]
        kind, _, region = name.partition(".")
        nodes = _nodes(facts, name, kind == GPU, region)
        working = {node.id for node in nodes if node.state == READY}
        ready = [one for one in facts.members if one.record.id in working]
        slots = _mean([one.record.slots for one in ready]) or 1.0
        work_s = _work_s(lanes, task_s, facts.resources, slots)
        waiting = {lane: facts.lanes[lane][0] for lane in lanes if lane in facts.lanes}
        taken = sum(one.heartbeat.queued for one in ready if one.heartbeat)
        pools.append(
            Pool(
                name=name, nodes=nodes, load=_load(memory, work_s, slots), cpu=_mean([_use(one) for one in ready]),
                queued=sum(waiting.values()) + taken, task_s=_mean_task_s(waiting, work_s), slots=max(1, round(slots)),
                needs_gpu=kind == GPU, region=region, demand_by_region=_origins(memory, lanes),
            )
        )  # fmt: skip
    named = {(lane[0], OPEN if is_open(lane[1]) else lane[1]): groups.get(lane, "") for lane in facts.lanes}
    return PoolSnapshot(tuple(pools), tuple(notes), named)


def _groups(facts: Facts, offers: Sequence[Offer]) -> tuple[dict[Lane, str], list[str]]:
    """(lane -> the scaler's pool, why lanes are left out)"""
    groups: dict[Lane, str] = {}
    notes: dict[str, None] = {}
    alive = [one.record for one in facts.members if one.state in ALIVE]
    for lane in sorted(facts.lanes):
        kind, pool, _ = lane
        requires = {} if is_open(pool) else facts.requires.get(pool)
        why = ""
        if pool.startswith("node-"):
            why = f"work for one named node ({pool[5:]}) is not helped by another one"
        elif requires is None:
            why = f"what the pool {pool} requires is not known"
        elif requires.get("labels") or requires.get("node"):
            why = f"no offer carries the labels that the pool {pool} asks for"
        elif alive and all(runs(kind, one) for one in alive):
            why = f"no node can run {kind}, so one more like them could not either"
        elif not any(_fits(requires, one) for one in offers) and offers:
            why = f"no offer has the cores or the memory that the pool {pool} asks for"
        if why:
            if facts.lanes[lane][0]:
                notes[why] = None
            continue
        assert requires is not None
        gpu = bool(requires.get("accelerator") or requires.get("gpu_memory_mb"))
        region = str(requires.get("region") or "")
        group = GPU if gpu else machine_of(kind, facts.resources)
        groups[lane] = f"{group}{'.' + region if region else ''}"
    return groups, list(notes)


def machine_of(kind: str, resources: Mapping[str, Resources]) -> str:
    """The pool of what any node with the right machine may do of this kind."""
    return GPU if kind in resources and resources[kind].gpu else MAIN


def slots_of(kind: str, resources: Mapping[str, Resources], slots: float) -> float:
    """Slots that a task of this kind takes of a node that has `slots`."""
    cores = resources[kind].cores if kind in resources else 1
    return slots if cores == "all" else min(float(cores), slots)


def _fits(requires: Mapping[str, Any], offer: Offer) -> bool:
    memory_gib = float(requires.get("memory_mb") or 0) / 1024
    return int(requires.get("cores") or 1) <= offer.vcpus and (not offer.memory_gib or memory_gib <= offer.memory_gib)


def _nodes(facts: Facts, pool: str, needs_gpu: bool, region: str) -> tuple[Node, ...]:
    """Those that are there, and those that are on their way for this pool."""
    found = []
    there = {one.record.labels.get(TOKEN_LABEL, "") for one in facts.members if one.state in ALIVE}
    others = sum(1 for one in facts.members if one.state in ALIVE and one.record.id != facts.me)
    for one in facts.members:
        record = one.record
        has_gpu = any(device.type in GPUS for device in record.capabilities.accelerators)
        if one.state not in ALIVE or (needs_gpu and not has_gpu):
            continue
        if region and record.region != region and not record.region.startswith(f"{region}-"):
            continue
        intent = facts.intents.get(record.labels.get(TOKEN_LABEL, ""))
        leaving = one.state == DRAINING or (intent is not None and intent.state == ENDING)
        # What the mesh stands on is not given up: the bus, and the last node there is.
        kept = record.hosts_bus or (record.id == facts.me and not others)
        found.append(
            Node(
                id=record.id, offer=intent.offer if intent else "", state=NODE_DRAINING if leaving else READY,
                launched_at=intent.at if intent else 0.0,
                # Not heard of yet: it may hold anything.
                running=one.heartbeat.running + one.heartbeat.queued if one.heartbeat else 1,
                price_usd_h=intent.price_usd_h if intent else 0.0,
                market=intent.market if intent else Node("").market, region=record.region, has_gpu=has_gpu,
                managed=intent is not None and not kept,
            )
        )  # fmt: skip
    coming = [one for token, one in sorted(facts.intents.items()) if token not in there]
    found += [as_node(one) for one in coming if one.state != JOINED and (one.pool or MAIN) == pool]
    return tuple(found)


def everything(members: Iterable[Member], intents: Mapping[str, Intent]) -> list[Node]:
    """Every node of the mesh and every one on its way or not known to be gone, whoever started it."""
    found, there = [], set()
    for one in members:
        if one.state in ALIVE:
            token = one.record.labels.get(TOKEN_LABEL, "")
            there.add(token)
            intent = intents.get(token)
            found.append(Node(one.record.id, state=READY, price_usd_h=intent.price_usd_h if intent else 0.0))
    return found + [as_node(one) for token, one in intents.items() if token not in there]


def _use(member: Member) -> float:
    """Share of a node in use, 0 to 1: slots taken, or its processors while it works. What others do on an idle node's
    machine is not the mesh's load."""
    heartbeat = member.heartbeat
    if heartbeat is None or not heartbeat.running + heartbeat.queued:
        return 0.0
    return min(1.0, max(heartbeat.running / max(1, member.record.slots), heartbeat.cpu_percent / 100.0))


def _task_s(facts: Facts) -> dict[str, float]:
    """kind -> mean run time, over all nodes, by how many tasks each has timed"""
    seconds: dict[str, float] = defaultdict(float)
    tasks: dict[str, int] = defaultdict(int)
    for one in facts.members:
        for kind, (mean_s, count) in one.rates.items():
            seconds[kind] += mean_s * count
            tasks[kind] += count
    return {kind: seconds[kind] / count for kind, count in tasks.items() if count}


def _work_s(
    lanes: Iterable[Lane], task_s: Mapping[str, float], resources: Mapping[str, Resources], slots: float
) -> dict[Lane, float]:
    """lane -> seconds x slots that a task of it takes; only of kinds that have been timed"""
    return {lane: task_s[lane[0]] * slots_of(lane[0], resources, slots) for lane in lanes if lane[0] in task_s}


def _load(memory: Flow, work_s: Mapping[Lane, float], slots: float) -> float:
    """Nodes kept busy by what arrived within the window."""
    lasted_s = sum(one.lasted_s for one in memory.window)
    came_s = sum(count * work_s[lane] for one in memory.window for lane, count in one.tasks.items() if lane in work_s)
    return came_s / lasted_s / slots if lasted_s > 0 else 0.0


def _mean_task_s(waiting: Mapping[Lane, int], work_s: Mapping[Lane, float]) -> float:
    """Of what waits; 0 while most of it has not been timed."""
    timed = {lane: count for lane, count in waiting.items() if lane in work_s}
    count = sum(timed.values())
    if not count or count * 2 < sum(waiting.values()):
        return 0.0
    return sum(work_s[lane] * many for lane, many in timed.items()) / count


def _origins(memory: Flow, lanes: Iterable[Lane]) -> dict[str, float]:
    """region of origin -> its share of what arrived, of work that says where it comes from"""
    ours, counts = set(lanes), defaultdict(int)
    for one in memory.window:
        for lane, count in one.tasks.items():
            if lane in ours and lane[1].startswith(f"{ANY}@"):
                counts[region_of(lane[1])] += count
    whole = sum(counts.values())
    return {region: count / whole for region, count in counts.items()} if whole else {}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
