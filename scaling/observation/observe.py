"""From what the leader knows (lanes, members, orders) to what a decision is based on: pools of nodes and their work.
Pure.

A pool of the scaler is a class of machines: `cpu`, or `gpu` where work asks for an accelerator, each also for a region
that work must stay in (`cpu.eu`). Work that no further node could help with is left out, with a note: work for one
named node, for labels, or of a kind that no node here can run.
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

#: The pool that bounds, baseline, schedule and spares apply to.
MAIN = "cpu"
GPU = "gpu"
GPU_TYPES = frozenset({"cuda", "rocm", "mps"})


class Arrivals(NamedTuple):
    """The tasks that arrived in each lane between two cycles."""

    at: float
    lasted_s: float
    tasks: Mapping[Lane, int]


@dataclass(frozen=True)
class ArrivalWindow:
    """The arrivals of the last cycles, and the lanes' counters from which the next are counted."""

    at: float = 0.0
    totals: Mapping[Lane, int] = field(default_factory=dict[Lane, int])
    """lane -> tasks that ever arrived in it, as far as its counters show"""
    arrivals: tuple[Arrivals, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything an observation is made from, read a moment ago."""

    lanes: Mapping[Lane, tuple[int, int, int]]
    """lane -> (waiting, delivered and not acknowledged, deliveries so far)"""
    requires: Mapping[str, Mapping[str, Any]]
    """pool of lanes -> what it requires"""
    resources: Mapping[str, Resources]
    """kind -> what one task of it takes"""
    members: Sequence[Member]
    intents: Mapping[str, Intent]
    node_id: str = ""
    """The node that decides: it does not drain itself while it is the only one."""


@dataclass(frozen=True)
class PoolSnapshot:
    """The pools, and what was left out of them."""

    pools: tuple[Pool, ...]
    notes: tuple[str, ...] = ()
    groups: Mapping[Work, str] = field(default_factory=dict[Work, str])
    """(kind, pool of lanes) of the present lanes -> the scaler's pool; "" where the work is left out"""


def count_arrivals(
    before: ArrivalWindow, lanes: Mapping[Lane, tuple[int, int, int]], window_s: float, now: float
) -> ArrivalWindow:
    """The window after this cycle's look at the lanes; the first look only takes the counters."""
    totals = {lane: delivered + waiting for lane, (waiting, _, delivered) in lanes.items()}
    if not before.at or now <= before.at:
        return ArrivalWindow(now, totals, before.arrivals)
    arrived: dict[Lane, int] = {}
    for lane, total in totals.items():
        previous = before.totals.get(lane, 0)
        new = total - previous if total >= previous else total  # fewer: the lane was created anew
        if new:
            arrived[lane] = new
    arrivals = (*before.arrivals, Arrivals(now, now - before.at, arrived))
    return ArrivalWindow(now, totals, tuple(each for each in arrivals if each.at > now - window_s))


def observe(facts: Facts, window: ArrivalWindow, offers: Sequence[Offer]) -> PoolSnapshot:
    """The pools there are; always at least the main one."""
    groups, notes = _groups(facts, offers)
    task_s = _task_s(facts)
    pools: list[Pool] = []
    for name in sorted({MAIN, *groups.values(), *(intent.pool for intent in facts.intents.values() if intent.pool)}):
        lanes = [lane for lane, group in groups.items() if group == name]
        machine, _, region = name.partition(".")
        nodes = _pool_nodes(facts, name, machine == GPU, region)
        ready_ids = {node.id for node in nodes if node.state == READY}
        ready = [member for member in facts.members if member.record.id in ready_ids]
        slots = _mean([member.record.slots for member in ready]) or 1.0
        work_s = _work_s(lanes, task_s, facts.resources, slots)
        waiting = {lane: facts.lanes[lane][0] for lane in lanes if lane in facts.lanes}
        taken = sum(member.heartbeat.queued for member in ready if member.heartbeat)
        pools.append(
            Pool(
                name=name, nodes=nodes, load=_load(window, work_s, slots),
                cpu=_mean([_utilization(member) for member in ready]), queued=sum(waiting.values()) + taken,
                task_s=_mean_task_s(waiting, work_s), slots=max(1, round(slots)), needs_gpu=machine == GPU,
                region=region, demand_by_region=_origins(window, lanes),
            )
        )  # fmt: skip
    by_work = {(lane[0], OPEN if is_open(lane[1]) else lane[1]): groups.get(lane, "") for lane in facts.lanes}
    return PoolSnapshot(tuple(pools), tuple(notes), by_work)


def _groups(facts: Facts, offers: Sequence[Offer]) -> tuple[dict[Lane, str], list[str]]:
    """(lane -> the scaler's pool, why lanes are left out)"""
    groups: dict[Lane, str] = {}
    notes: dict[str, None] = {}
    alive = [member.record for member in facts.members if member.state in ALIVE]
    for lane in sorted(facts.lanes):
        kind, pool, _ = lane
        requires: Mapping[str, Any] | None = {} if is_open(pool) else facts.requires.get(pool)
        why = ""
        if pool.startswith("node-"):
            why = f"another node does not help with work for one named node ({pool[5:]})"
        elif requires is None:
            why = f"the requirements of the pool {pool} are not known"
        elif requires.get("labels") or requires.get("node"):
            why = f"no offer has the labels that the pool {pool} requires"
        elif alive and all(runs(kind, record) for record in alive):
            why = f"no node can run {kind}, so another node like them does not help"
        elif not any(_fits(requires, offer) for offer in offers) and offers:
            why = f"no offer has the cores or the memory that the pool {pool} requires"
        if why or requires is None:
            if facts.lanes[lane][0]:
                notes[why] = None
            continue
        needs_gpu = bool(requires.get("accelerator") or requires.get("gpu_memory_mb"))
        region = str(requires.get("region") or "")
        group = GPU if needs_gpu else pool_of_kind(kind, facts.resources)
        groups[lane] = f"{group}{'.' + region if region else ''}"
    return groups, list(notes)


def pool_of_kind(kind: str, resources: Mapping[str, Resources]) -> str:
    """The pool of this kind's work where any node with the right hardware may do it."""
    return GPU if kind in resources and resources[kind].gpu else MAIN


def slots_per_task(kind: str, resources: Mapping[str, Resources], slots: float) -> float:
    """Slots that a task of this kind takes on a node that has `slots`."""
    cores = resources[kind].cores if kind in resources else 1
    return slots if cores == "all" else min(float(cores), slots)


def _fits(requires: Mapping[str, Any], offer: Offer) -> bool:
    memory_gib = float(requires.get("memory_mb") or 0) / 1024
    return int(requires.get("cores") or 1) <= offer.vcpus and (not offer.memory_gib or memory_gib <= offer.memory_gib)


def _pool_nodes(facts: Facts, pool: str, needs_gpu: bool, region: str) -> tuple[Node, ...]:
    """The members that can do the pool's work, and the nodes on order for it."""
    nodes: list[Node] = []
    joined = {member.record.labels.get(TOKEN_LABEL, "") for member in facts.members if member.state in ALIVE}
    others = sum(1 for member in facts.members if member.state in ALIVE and member.record.id != facts.node_id)
    for member in facts.members:
        record, heartbeat = member.record, member.heartbeat
        has_gpu = any(device.type in GPU_TYPES for device in record.capabilities.accelerators)
        if member.state not in ALIVE or (needs_gpu and not has_gpu):
            continue
        if region and record.region != region and not record.region.startswith(f"{region}-"):
            continue
        intent = facts.intents.get(record.labels.get(TOKEN_LABEL, ""))
        leaving = member.state == DRAINING or (intent is not None and intent.state == ENDING)
        # The mesh needs the node that hosts the bus, and the last node there is.
        is_essential = record.hosts_bus or (record.id == facts.node_id and not others)
        nodes.append(
            Node(
                id=record.id, offer=intent.offer if intent else "", state=NODE_DRAINING if leaving else READY,
                launched_at=intent.at if intent else 0.0,
                running=heartbeat.running + heartbeat.queued if heartbeat else 1,  # without a heartbeat: unknown
                price_usd_h=intent.price_usd_h if intent else 0.0,
                market=intent.market if intent else Node("").market, region=record.region, has_gpu=has_gpu,
                managed=intent is not None and not is_essential,
            )
        )  # fmt: skip
    pending = [intent for token, intent in sorted(facts.intents.items()) if token not in joined]
    nodes += [as_node(intent) for intent in pending if intent.state != JOINED and (intent.pool or MAIN) == pool]
    return tuple(nodes)


def all_nodes(members: Iterable[Member], intents: Mapping[str, Intent]) -> list[Node]:
    """Every node of the mesh, and every ordered one that is starting or not known to be gone, whoever started it."""
    nodes: list[Node] = []
    joined: set[str] = set()
    for member in members:
        if member.state in ALIVE:
            token = member.record.labels.get(TOKEN_LABEL, "")
            joined.add(token)
            intent = intents.get(token)
            nodes.append(Node(member.record.id, state=READY, price_usd_h=intent.price_usd_h if intent else 0.0))
    return nodes + [as_node(intent) for token, intent in intents.items() if token not in joined]


def _utilization(member: Member) -> float:
    """Share of a node in use, 0 to 1: its slots taken, or its processors while it works.

    What other programs do on the machine of an idle node is not the mesh's load.
    """
    heartbeat = member.heartbeat
    if heartbeat is None or not heartbeat.running + heartbeat.queued:
        return 0.0
    return min(1.0, max(heartbeat.running / max(1, member.record.slots), heartbeat.cpu_percent / 100.0))


def _task_s(facts: Facts) -> dict[str, float]:
    """kind -> mean run time over all nodes, weighted by the tasks each has timed"""
    seconds: dict[str, float] = defaultdict(float)
    tasks: dict[str, int] = defaultdict(int)
    for member in facts.members:
        for kind, (mean_s, count) in member.rates.items():
            seconds[kind] += mean_s * count
            tasks[kind] += count
    return {kind: seconds[kind] / count for kind, count in tasks.items() if count}


def _work_s(
    lanes: Iterable[Lane], task_s: Mapping[str, float], resources: Mapping[str, Resources], slots: float
) -> dict[Lane, float]:
    """lane -> seconds x slots that a task of it takes; only for kinds that have been timed"""
    return {lane: task_s[lane[0]] * slots_per_task(lane[0], resources, slots) for lane in lanes if lane[0] in task_s}


def _load(window: ArrivalWindow, work_s: Mapping[Lane, float], slots: float) -> float:
    """Nodes kept busy by what arrived within the window."""
    lasted_s = sum(each.lasted_s for each in window.arrivals)
    arrived_s = sum(
        count * work_s[lane] for each in window.arrivals for lane, count in each.tasks.items() if lane in work_s
    )
    return arrived_s / lasted_s / slots if lasted_s > 0 else 0.0


def _mean_task_s(waiting: Mapping[Lane, int], work_s: Mapping[Lane, float]) -> float:
    """Mean over the waiting tasks; 0 while most of them are of kinds that have not been timed."""
    timed = {lane: count for lane, count in waiting.items() if lane in work_s}
    tasks = sum(timed.values())
    if not tasks or tasks * 2 < sum(waiting.values()):
        return 0.0
    return sum(work_s[lane] * count for lane, count in timed.items()) / tasks


def _origins(window: ArrivalWindow, lanes: Iterable[Lane]) -> dict[str, float]:
    """region of origin -> its share of the arrivals whose origin is known"""
    pool_lanes, counts = set(lanes), defaultdict[str, int](int)
    for each in window.arrivals:
        for lane, count in each.tasks.items():
            if lane in pool_lanes and lane[1].startswith(f"{ANY}@"):
                counts[region_of(lane[1])] += count
    total = sum(counts.values())
    return {region: count / total for region, count in counts.items()} if total else {}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
