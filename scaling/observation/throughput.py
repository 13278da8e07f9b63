"""How fast the machine types that offers give really are at the mesh's work: measured by what their nodes did. Pure.

Kept as tasks an hour of each kind, which mean the same whoever else is there; made relative when offers are compared.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping

from mesh.capacity import TOKEN_LABEL
from mesh.kinds.base import Resources
from mesh.membership.member import Member
from scaling.observation.observe import machine_of, slots_of
from scaling.state.orders import Intent

#: A node that has done fewer tasks of a kind says nothing of it yet.
LEAST_TASKS = 5

#: offer -> kind -> tasks an hour that a node of it does
Speeds = Mapping[str, Mapping[str, float]]


def measured(
    before: Speeds, members: Iterable[Member], intents: Mapping[str, Intent], resources: Mapping[str, Resources]
) -> dict[str, dict[str, float]]:
    """What is known after another look: the mean of an offer's nodes now; what has none any more stays as it was."""
    found: dict[str, dict[str, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    for one in members:
        intent = intents.get(one.record.labels.get(TOKEN_LABEL, ""))
        if intent is None:
            continue
        slots = float(max(1, one.record.slots))
        for kind, (mean_s, tasks) in one.rates.items():
            if mean_s > 0 and tasks >= LEAST_TASKS:
                at_once = slots / slots_of(kind, resources, slots)
                found[intent.offer][kind].append((3600.0 * at_once / mean_s, tasks))
    after = {offer: dict(kinds) for offer, kinds in before.items()}
    for offer, kinds in found.items():
        for kind, seen in kinds.items():
            count = sum(tasks for _, tasks in seen)
            after.setdefault(offer, {})[kind] = sum(an_hour * tasks for an_hour, tasks in seen) / count
    return after


def of_pools(speeds: Speeds, resources: Mapping[str, Resources]) -> dict[str, dict[str, float]]:
    """offer -> pool -> its speed at that pool's work, the mean offer's being 1; only of what was measured.

    A pool's kinds count alike: the geometric mean of what the offer does of each beside the mean of all offers.
    """
    means = {
        kind: statistics.fmean(one[kind] for one in speeds.values() if kind in one)
        for kind in {kind for one in speeds.values() for kind in one}
    }
    found: dict[str, dict[str, float]] = {}
    for offer, kinds in speeds.items():
        parts: dict[str, list[float]] = defaultdict(list)
        for kind, an_hour in kinds.items():
            if an_hour > 0:
                parts[machine_of(kind, resources)].append(an_hour / means[kind])
        found[offer] = {pool: statistics.geometric_mean(ratios) for pool, ratios in parts.items()}
    return found
