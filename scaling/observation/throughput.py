"""Measured throughput: how fast the nodes of each offer work, by the tasks they did. Pure.

Kept as tasks per hour of each kind, which does not depend on other offers; relative only when offers are compared.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping

from mesh.capacity import TOKEN_LABEL
from mesh.kinds.base import Resources
from mesh.membership.member import Member
from scaling.domain.units import HOUR_S
from scaling.observation.observe import pool_of_kind, slots_per_task
from scaling.state.orders import Intent

#: A node that has done fewer tasks of a kind does not count as a measurement of it.
LEAST_TASKS = 5

#: offer -> kind -> tasks per hour of one node
Speeds = Mapping[str, Mapping[str, float]]


def update_speeds(
    before: Speeds, members: Iterable[Member], intents: Mapping[str, Intent], resources: Mapping[str, Resources]
) -> dict[str, dict[str, float]]:
    """The mean over an offer's present nodes, weighted by tasks; an offer without nodes keeps its last speeds."""
    found: dict[str, dict[str, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    for member in members:
        intent = intents.get(member.record.labels.get(TOKEN_LABEL, ""))
        if intent is None:
            continue
        slots = float(max(1, member.record.slots))
        for kind, (mean_s, tasks) in member.rates.items():
            if mean_s > 0 and tasks >= LEAST_TASKS:
                at_once = slots / slots_per_task(kind, resources, slots)
                found[intent.offer][kind].append((HOUR_S * at_once / mean_s, tasks))
    after = {offer: dict(kinds) for offer, kinds in before.items()}
    for offer, kinds in found.items():
        for kind, measurements in kinds.items():
            count = sum(tasks for _, tasks in measurements)
            after.setdefault(offer, {})[kind] = sum(per_hour * tasks for per_hour, tasks in measurements) / count
    return after


def pool_speeds(speeds: Speeds, resources: Mapping[str, Resources]) -> dict[str, dict[str, float]]:
    """offer -> pool -> its speed at that pool's work, where the mean offer has 1; measured offers only.

    The kinds of a pool count alike: the speed is the geometric mean of the offer's throughput of each kind over the
    mean of all offers.
    """
    measured = {kind for kinds in speeds.values() for kind in kinds}
    means = {kind: statistics.fmean(kinds[kind] for kinds in speeds.values() if kind in kinds) for kind in measured}
    found: dict[str, dict[str, float]] = {}
    for offer, kinds in speeds.items():
        ratios: dict[str, list[float]] = defaultdict(list)
        for kind, per_hour in kinds.items():
            if per_hour > 0:
                ratios[pool_of_kind(kind, resources)].append(per_hour / means[kind])
        found[offer] = {pool: statistics.geometric_mean(values) for pool, values in ratios.items()}
    return found
