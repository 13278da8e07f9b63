"""Whether a loss fell, and a curve short enough to send. Pure: numbers in, a verdict out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

#: Fewer losses say nothing.
LEAST_STEPS = 20
#: A fall of less than this share of the first losses is none.
LEAST_FALL = 0.01
#: The fall must be so many times what chance gives two means of such losses.
SIGMAS = 3.0
#: Where chance alone makes up such a share of the first losses, nobody can say that it did not fall.
TOO_NOISY = 0.25
MAX_POINTS = 200


@dataclass(frozen=True)
class Verdict:
    """`fell` is None when nobody can say."""

    fell: bool | None
    first: float
    last: float
    words: str


def judge(losses: Sequence[float]) -> Verdict:
    """Compare the mean of the first losses with that of the last ones: a fifth of all at each end, 5 at least.

    It fell when the difference is at least LEAST_FALL of the first and SIGMAS times its standard error. The noise is
    taken from differences of neighbours, in which a trend hardly shows.
    """
    if not losses:
        return Verdict(None, 0.0, 0.0, "there are no losses")
    count = min(max(5, len(losses) // 5), max(1, len(losses) // 2))
    first, last = sum(losses[:count]) / count, sum(losses[-count:]) / count
    ends = f"from {first:.4g} to {last:.4g}, means of {count} steps at each end"
    if not all(map(math.isfinite, losses)):
        return Verdict(False, first, last, "it is no finite number")
    if len(losses) < LEAST_STEPS:
        return Verdict(None, first, last, f"{len(losses)} steps are too few to say whether it fell ({ends})")
    pairs = [(a - b) ** 2 / 2 for part in (losses[:count], losses[-count:]) for a, b in pairwise(part)]
    error = math.sqrt(2 * sum(pairs) / len(pairs) / count)
    fall = first - last
    if fall >= LEAST_FALL * abs(first) and fall >= SIGMAS * error:
        return Verdict(True, first, last, f"it fell {ends}")
    chance = f"chance alone makes differences of {SIGMAS * error:.2g}"
    if SIGMAS * error > TOO_NOISY * abs(first):
        return Verdict(None, first, last, f"nobody can say whether it fell: {ends}, and {chance}")
    return Verdict(False, first, last, f"it did not fall: {ends}; {chance}")


def thinned(losses: Sequence[float], points: int = MAX_POINTS) -> list[list[float]]:
    """[step, loss] of `points` stretches at most: the last step of each (from 1), and the mean of its losses."""
    span = max(1, math.ceil(len(losses) / points))
    stretches = [losses[at : at + span] for at in range(0, len(losses), span)]
    return [[min((n + 1) * span, len(losses)), sum(part) / len(part)] for n, part in enumerate(stretches)]
