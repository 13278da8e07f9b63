"""Statistics of samples: quantiles, spread, confidence intervals, ratios. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


class BenchFailed(Exception):
    """The benchmark has no result: something did not start, or an answer was wrong."""


@dataclass(frozen=True)
class Round:
    """One measured round: `tasks` tasks in `took_s` seconds, every answer checked."""

    tasks: int
    took_s: float

    @property
    def per_s(self) -> float:
        """Tasks per second."""
        return self.tasks / self.took_s


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` (0 to 1) of the samples do not exceed.

    Raises: ValueError without samples.
    """
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(samples: Sequence[float]) -> float:
    """(largest - smallest) / median: 0.1 means that the samples lie within a tenth of each other."""
    center = median(samples)
    return (max(samples) - min(samples)) / center if center else 0.0


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """(low, high, confidence): two samples between which the true median lies, for any distribution (sign test).

    The narrowest pair with at least `confidence`; the smallest and the largest sample where there are too few.
    Raises: ValueError without samples.
    """
    if not samples:
        raise ValueError("no samples")
    ordered, count = sorted(samples), len(samples)
    outside, left = 2.0 * 0.5**count, 0
    while left + 1 < count - 1 - (left + 1):
        wider = outside + 2.0 * math.comb(count, left + 1) * 0.5**count
        if 1.0 - wider < confidence:
            break
        outside, left = wider, left + 1
    return ordered[left], ordered[count - 1 - left], max(0.0, 1.0 - outside)


def ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """The median of mesh / raw over pairs of rounds measured one after the other, so that a slow minute slows both."""
    return median(mesh / raw for mesh, raw in pairs)


def disturbance(
    before: tuple[float, float, float], after: tuple[float, float, float], ours_s: float
) -> dict[str, float]:
    """The share of the machine's CPU that others used: `others`, other processes, and `stolen`, the host.

    `before` and `after`: (used, stolen, total) CPU seconds of the machine; `ours_s`: CPU seconds of what was measured.
    """
    used_s, stolen_s, total_s = (late - early for early, late in zip(before, after, strict=True))
    if total_s <= 0:
        return {"others": 0.0, "stolen": 0.0}
    return {"others": round(max(0.0, used_s - ours_s) / total_s, 3), "stolen": round(stolen_s / total_s, 3)}
