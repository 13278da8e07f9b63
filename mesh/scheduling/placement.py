"""Who should take which kind of work first, and why nobody can. Pure.

Rank is preference: the bus serves pulls of rank 0 first and 9 last, so a wrong rank costs time, never a task.
Measured run times decide where there are enough of them; where not, how long the kind's probe took on each node; where
that was not measured either, an estimate from the machine's capabilities. Machines that are paid for come after our
own; those that may be dying or are leaving come last.
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

#: Tasks a node must have run before its mean run time counts.
ENOUGH = 5
#: A mean no task has changed for this long is history: the node is judged by its capabilities again.
STALE_S = 600.0
#: Slower than the best by less than this factor: rank 0, 1, … (the last is open).
STEPS = (1.25, 1.6, 2.5, 4.0)
#: A rank is left only when its border was passed by this factor.
STICKY = 1.15
RENTED_AFTER = len(STEPS)


@dataclass(frozen=True)
class Standing:
    """What is remembered of one node and kind, so that ranks don't flap."""

    step: int
    tasks: int
    """Tasks counted when the mean last changed."""
    changed_at: float


@dataclass(frozen=True)
class Memory:
    """(kind, node) -> its standing; times are monotonic."""

    standings: Mapping[tuple[str, str], Standing] = field(default_factory=dict)


Ranks = dict[str, dict[str, int]]


def ranks(
    members: Sequence[Member], resources: Mapping[str, Resources], memory: Memory, now: float
) -> tuple[Ranks, Memory]:
    """Per kind, each capable node's pull priority 0 (first) to 9, and the memory for the next time.

    `resources`: what one task of each kind takes; kinds that are not in it get no ranks.
    """
    plan: Ranks = {}
    standings: dict[tuple[str, str], Standing] = {}
    for kind, takes in sorted(resources.items()):
        able = [one for one in members if one.state in ALIVE and not lanes.runs(kind, one.record)]
        seconds = _seconds(kind, takes, able, memory, now)
        best = {
            rented: min((seconds[one.record.id] for one in able if _rented(one) == rented), default=1.0)
            for rented in (False, True)
        }
        owned_last = -1
        steps: dict[str, int] = {}
        for one in able:
            node = one.record.id
            before = memory.standings.get((kind, node))
            steps[node] = _step(seconds[node] / best[_rented(one)], before.step if before else None)
            standings[kind, node] = _standing(before, steps[node], one, kind, now)
            if not _rented(one) and one.state == UP:
                owned_last = max(owned_last, steps[node])
        if able:
            plan[kind] = {one.record.id: _rank(one, steps[one.record.id], owned_last) for one in able}
    return plan, Memory(standings)


def regions(members: Iterable[Member]) -> tuple[str, ...]:
    """Where there are nodes that can work, "" for those that name no region."""
    return tuple(sorted({one.record.region for one in members if one.state in ALIVE}))


def _rank(one: Member, step: int, owned_last: int) -> int:
    if one.state in (SUSPECT, DRAINING):
        return LAST
    if _rented(one) and owned_last >= 0:
        return min(RENTED_AFTER + 1 + step, LAST - 1)
    return step


def _rented(one: Member) -> bool:
    labels = one.record.labels
    return labels.get("market") in ("spot", "on-demand", "rented") or labels.get("rented") == "true"


def _seconds(kind: str, takes: Resources, able: Sequence[Member], memory: Memory, now: float) -> dict[str, float]:
    """Each node's run time of one task: measured, else its probe's, else an estimate, each scaled to the better one."""
    estimates = {one.record.id: _estimate(takes, one.record) for one in able}
    probed = {one.record.id: one.record.capabilities.speeds.get(kind, 0.0) for one in able}
    estimates = _better(estimates, {node: probe_s for node, probe_s in probed.items() if probe_s > 0})
    measured: dict[str, float] = {}
    for one in able:
        mean_s, tasks = one.rates.get(kind, (0.0, 0))
        before = memory.standings.get((kind, one.record.id))
        stale = before is not None and before.tasks == tasks and now - before.changed_at > STALE_S
        if tasks >= ENOUGH and mean_s > 0 and not stale:
            measured[one.record.id] = mean_s
    return _better(estimates, measured)


def _better(estimates: Mapping[str, float], known: Mapping[str, float]) -> dict[str, float]:
    """`known` where there is one, else the estimate in its units; one alone says nothing of how nodes compare."""
    if len(known) < 2:
        return dict(estimates)
    scale = statistics.median(seconds / estimates[node] for node, seconds in known.items())
    return {node: known.get(node, estimate * scale) for node, estimate in estimates.items()}


def _estimate(takes: Resources, record: NodeRecord) -> float:
    """Run time of one task in units of its own: only the ratio between nodes means anything."""
    have = record.capabilities
    cores = max(1, have.cores)
    if takes.gpu:
        memory_gib = max((one.memory_bytes for one in have.accelerators), default=0) / 2**30
        return 1.0 / (1.0 + memory_gib) if have.accelerators else 8.0
    if takes.cores == "all":
        return 1.0 / cores
    return max(1.0, takes.cores / cores)


def _step(ratio: float, before: int | None) -> int:
    """Which rank a run time `ratio` times the best one means; the one it had before is hard to leave."""
    if before is not None:
        low = STEPS[before - 1] / STICKY if before else 0.0
        high = STEPS[before] * STICKY if before < len(STEPS) else float("inf")
        if low <= ratio < high:
            return before
    return sum(1 for border in STEPS if ratio >= border)


def _standing(before: Standing | None, step: int, one: Member, kind: str, now: float) -> Standing:
    tasks = one.rates.get(kind, (0.0, 0))[1]
    changed_at = before.changed_at if before and before.tasks == tasks else now
    return Standing(step, tasks, changed_at)


def unmet(requires: dict[str, Any], kind: str, members: Iterable[Member]) -> tuple[tuple[str, ...], bool]:
    """(why a task is not started, one phrase a reason: "2 of 5 nodes: no cv2"; whether waiting helps).

    No reasons when some node could start it now. Waiting helps when a node of the mesh could run it later.
    """
    known = [one for one in members if one.state != LEFT]
    able = {UP: "", SUSPECT: "not heard from just now", DRAINING: "leaving"}
    reasons: Counter[str] = Counter()
    helps = startable = False
    for one in known:
        if one.state in (GONE, REGISTERED):
            reasons["gone" if one.state == GONE else "registered, not connected yet"] += 1
            continue
        lacks = _lacks(requires, kind, one)
        if lacks:
            reasons.update(lacks)
            continue
        helps = helps or one.state != DRAINING
        if one.state == UP and not one.is_busy:
            startable = True
        else:
            reasons[able[one.state] or "busy"] += 1
    if startable:
        return (), True
    if not known:
        return ("there is no node in the mesh",), False
    total = f"{len(known)} node" if len(known) == 1 else f"{len(known)} nodes"
    return tuple(f"{count} of {total}: {reason}" for reason, count in reasons.most_common()), helps


def _lacks(requires: dict[str, Any], kind: str, one: Member) -> tuple[str, ...]:
    missing = lanes.runs(kind, one.record)
    return ((missing,) if missing else ()) + lanes.meets(requires, one.record)
