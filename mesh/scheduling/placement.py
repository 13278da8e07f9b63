"""Placement: which nodes should take a kind of work first, and why no node can take a task. Pure.

A rank is a preference: the bus serves pull requests of rank 0 first and 9 last, so a wrong rank costs time, but never a
task. The rank follows from measured run times where there are enough of them, else from the run time of the kind's
probe, else from an estimate by the machine's capabilities. Rented machines come after owned ones; nodes that may be
dead or are leaving come last.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh import lanes
from mesh.kinds.base import Resources
from mesh.lanes import LAST
from mesh.membership.member import ALIVE, DRAINING, GONE, LEFT, REGISTERED, SUSPECT, UP, Member
from mesh.messages import NodeRecord

#: The mean run time of a node counts after this many tasks.
ENOUGH = 5
#: A mean that no task has changed for this long is ignored; the estimate is used again, seconds.
STALE_S = 600.0
#: Upper bounds of the ranks 0, 1, …: the run time relative to the best node. The last rank has no bound.
STEPS = (1.25, 1.6, 2.5, 4.0)
#: Hysteresis: a rank changes only when its bound is passed by this factor.
STICKY = 1.15
RENTED_AFTER = len(STEPS)


@dataclass(frozen=True)
class Standing:
    """The last rank of one node and kind, so that ranks don't flap."""

    step: int
    tasks: int
    """Number of tasks when the mean last changed."""
    changed_at: float


@dataclass(frozen=True)
class Memory:
    """(kind, node) -> its standing; times are monotonic."""

    standings: Mapping[tuple[str, str], Standing] = field(default_factory=dict)


Ranks = dict[str, dict[str, int]]


def ranks(
    members: Sequence[Member], resources: Mapping[str, Resources], memory: Memory, now: float
) -> tuple[Ranks, Memory]:
    """(kind -> node id -> rank from 0 (first) to 9 for every capable node, the memory for the next call).

    `resources`: kind -> what one of its tasks needs; other kinds get no ranks. `now`: monotonic seconds.
    """
    plan: Ranks = {}
    standings: dict[tuple[str, str], Standing] = {}
    for kind, needs in sorted(resources.items()):
        able = [member for member in members if member.state in ALIVE and not lanes.runs(kind, member.record)]
        seconds = _seconds(kind, needs, able, memory, now)
        best = {
            rented: min((seconds[member.record.id] for member in able if _rented(member) == rented), default=1.0)
            for rented in (False, True)
        }
        owned_last = -1
        steps: dict[str, int] = {}
        for member in able:
            node = member.record.id
            before = memory.standings.get((kind, node))
            steps[node] = _step(seconds[node] / best[_rented(member)], before.step if before else None)
            standings[kind, node] = _standing(before, steps[node], member, kind, now)
            if not _rented(member) and member.state == UP:
                owned_last = max(owned_last, steps[node])
        if able:
            plan[kind] = {member.record.id: _rank(member, steps[member.record.id], owned_last) for member in able}
    return plan, Memory(standings)


def regions(members: Iterable[Member], limit: int) -> tuple[str, ...]:
    """The regions that have living nodes, sorted, the first `limit` of them; "" stands for nodes without a region."""
    found = sorted({member.record.region for member in members if member.state in ALIVE})
    return tuple(found[: limit + ("" in found)])


def _rank(member: Member, step: int, owned_last: int) -> int:
    if member.state in (SUSPECT, DRAINING):
        return LAST
    if _rented(member) and owned_last >= 0:
        return min(RENTED_AFTER + 1 + step, LAST - 1)
    return step


def _rented(member: Member) -> bool:
    labels = member.record.labels
    return labels.get("market") in ("spot", "on-demand", "rented") or labels.get("rented") == "true"


def _seconds(kind: str, needs: Resources, able: Sequence[Member], memory: Memory, now: float) -> dict[str, float]:
    """Node id -> run time of one task: measured, else of the probe, else estimated, scaled to the better source."""
    estimates = {member.record.id: _estimate(needs, member.record) for member in able}
    probed = {member.record.id: member.record.capabilities.speeds.get(kind, 0.0) for member in able}
    estimates = _better(estimates, {node: probe_s for node, probe_s in probed.items() if probe_s > 0})
    measured: dict[str, float] = {}
    for member in able:
        mean_s, tasks = member.rates.get(kind, (0.0, 0))
        before = memory.standings.get((kind, member.record.id))
        stale = before is not None and before.tasks == tasks and now - before.changed_at > STALE_S
        if tasks >= ENOUGH and mean_s > 0 and not stale:
            measured[member.record.id] = mean_s
    return _better(estimates, measured)


def _better(estimates: Mapping[str, float], known: Mapping[str, float]) -> dict[str, float]:
    """`known` where available, else the estimate scaled to it. A single known value can't calibrate the estimates."""
    if len(known) < 2:
        return dict(estimates)
    scale = statistics.median(seconds / estimates[node] for node, seconds in known.items())
    return {node: known.get(node, estimate * scale) for node, estimate in estimates.items()}


def _estimate(needs: Resources, record: NodeRecord) -> float:
    """Estimated run time of one task in arbitrary units: only the ratio between nodes has a meaning."""
    have = record.capabilities
    cores = max(1, have.cores)
    if needs.gpu:
        memory_gib = max((device.memory_bytes for device in have.accelerators), default=0) / 2**30
        return 1.0 / (1.0 + memory_gib) if have.accelerators else 8.0
    if needs.cores == "all":
        return 1.0 / cores
    return max(1.0, needs.cores / cores)


def _step(ratio: float, before: int | None) -> int:
    """The rank for a run time of `ratio` times the best one, with hysteresis around the previous rank."""
    if before is not None:
        low = STEPS[before - 1] / STICKY if before else 0.0
        high = STEPS[before] * STICKY if before < len(STEPS) else float("inf")
        if low <= ratio < high:
            return before
    return sum(ratio >= bound for bound in STEPS)


def _standing(before: Standing | None, step: int, member: Member, kind: str, now: float) -> Standing:
    tasks = member.rates.get(kind, (0.0, 0))[1]
    changed_at = before.changed_at if before and before.tasks == tasks else now
    return Standing(step, tasks, changed_at)


def unmet(requires: dict[str, Any], kind: str, members: Iterable[Member]) -> tuple[tuple[str, ...], bool]:
    """(why a task has not started, a phrase per reason such as "2 of 5 nodes: no cv2"; whether waiting helps).

    There are no reasons when a node could start it now. Waiting helps when a node of the mesh could run it later.
    """
    known = [member for member in members if member.state != LEFT]
    able = {UP: "", SUSPECT: "not heard from just now", DRAINING: "leaving"}
    reasons: Counter[str] = Counter()
    helps = startable = False
    for member in known:
        if member.state in (GONE, REGISTERED):
            reasons["gone" if member.state == GONE else "registered, not connected yet"] += 1
            continue
        lacks = _lacks(requires, kind, member)
        if lacks:
            reasons.update(lacks)
            continue
        helps = helps or member.state != DRAINING
        if member.state == UP and not member.is_busy:
            startable = True
        else:
            reasons[able[member.state] or "busy"] += 1
    if startable:
        return (), True
    if not known:
        return ("there is no node in the mesh",), False
    total = f"{len(known)} node" if len(known) == 1 else f"{len(known)} nodes"
    return tuple(f"{count} of {total}: {reason}" for reason, count in reasons.most_common()), helps


def is_runnable(requires: dict[str, Any], kind: str, members: Iterable[Member]) -> bool:
    """Whether one of `members` that is up meets the requirements and has the kind."""
    # Asked for every submission: usually the first node can.
    return any(member.state in (UP, SUSPECT) and not _lacks(requires, kind, member) for member in members)


def can_start(requires: dict[str, Any], kind: str, declared: int | str, members: Iterable[Member]) -> bool:
    """Whether one of `members` has the free slots to start a task now. `declared`: the cores of its kind, or "all"."""
    return any(
        member.state == UP
        and lanes.cores_for(requires, declared, member.record.slots) <= member.free_slots
        and not _lacks(requires, kind, member)
        for member in members
    )


def warnings(requires: dict[str, Any], kind: str, members: Iterable[Member]) -> tuple[str, ...]:
    """Why none of `members` can ever run a task, a sentence; empty when one can, or will be able to."""
    present = list(members)
    if is_runnable(requires, kind, present):
        return ()
    reasons, helps = unmet(requires, kind, present)
    if helps:
        return ()
    return (f"No node that is in the mesh now can run this task ({'; '.join(reasons)}); it waits for one that can.",)


def _lacks(requires: dict[str, Any], kind: str, member: Member) -> tuple[str, ...]:
    missing = lanes.runs(kind, member.record)
    return ((missing,) if missing else ()) + lanes.meets(requires, member.record)
