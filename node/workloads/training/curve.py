"""Decides whether a loss fell, and shortens a loss curve for the result (pure)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

#: With fewer losses there is no verdict.
LEAST_STEPS = 20
#: The smallest fall that counts, as a share of the first losses.
LEAST_FALL = 0.01
#: The smallest fall that counts, in standard errors of the difference of the two means.
SIGMAS = 3.0
#: With noise above this share of the first losses, there is no verdict that the loss did not fall.
TOO_NOISY = 0.25
MAX_POINTS = 200


@dataclass(frozen=True)
class Verdict:
    """Whether the loss fell (None: undecided), the means at both ends, and an explanation."""

    fell: bool | None
    first: float
    last: float
    words: str


def judge(losses: Sequence[float]) -> Verdict:
    """Compare the mean of the first losses with that of the last ones: a fifth of all at each end, at least 5.

    The loss fell when the difference is at least LEAST_FALL of the first mean and SIGMAS standard errors. The noise is
    estimated from differences of neighbours, which a trend hardly affects.
    """
    if not losses:
        return Verdict(None, 0.0, 0.0, "there are no losses")
    count = min(max(5, len(losses) // 5), max(1, len(losses) // 2))
    first, last = sum(losses[:count]) / count, sum(losses[-count:]) / count
    ends = f"from {first:.4g} to {last:.4g}, means of {count} steps at each end"
    if not all(map(math.isfinite, losses)):
        return Verdict(False, first, last, "it is not a finite number")
    if len(losses) < LEAST_STEPS:
        return Verdict(None, first, last, f"{len(losses)} steps are too few to decide whether it fell ({ends})")
    pairs = [(a - b) ** 2 / 2 for part in (losses[:count], losses[-count:]) for a, b in pairwise(part)]
    error = math.sqrt(2 * sum(pairs) / len(pairs) / count)
    fall = first - last
    if fall >= LEAST_FALL * abs(first) and fall >= SIGMAS * error:
        return Verdict(True, first, last, f"it fell {ends}")
    noise = f"noise alone causes differences of {SIGMAS * error:.2g}"
    if SIGMAS * error > TOO_NOISY * abs(first):
        return Verdict(None, first, last, f"it is too noisy to decide whether it fell: {ends}, and {noise}")
    return Verdict(False, first, last, f"it did not fall: {ends}; {noise}")


def thinned(losses: Sequence[float], points: int = MAX_POINTS) -> list[list[float]]:
    """At most `points` pairs [last step of a stretch (from 1), mean of its losses]."""
    span = max(1, math.ceil(len(losses) / points))
    stretches = [losses[at : at + span] for at in range(0, len(losses), span)]
    return [[min((n + 1) * span, len(losses)), sum(part) / len(part)] for n, part in enumerate(stretches)]
