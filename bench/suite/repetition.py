"""How often a benchmark is repeated: until its figure is steady, or the cap is reached. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.measure import median_interval, spread
from bench.suite.model import Measured


@dataclass(frozen=True)
class Rules:
    """When enough is enough."""

    least: int = 5
    """Repetitions that are made in any case (in a pass), unless one alone fills the cap."""
    most: int = 25
    steady: float = 0.05
    """A spread of the middle samples below this is steady."""
    cap_s: float = 60.0
    """No repetition begins that would end past this, once there are `least`; past twice this, none at all."""
    passes: int = 1
    """How often all of this is done, with the other benchmarks in between."""


QUICK = Rules(most=7, cap_s=5.0)
#: At least six repetitions in all, and at most a minute's.
FULL = Rules(least=3, most=13, cap_s=30.0, passes=2)


def stop(samples: Sequence[float], elapsed_s: float, rules: Rules) -> str:
    """Why no other repetition is made; "" when one is.

    `samples`: the headline figure of each repetition so far; `elapsed_s`: since the first one began.
    """
    made = len(samples)
    if not made:
        return ""
    each_s = elapsed_s / made
    if made >= rules.most:
        return f"{made} repetitions, the most there are"
    if made >= rules.least:
        if core_spread(samples) < rules.steady:
            return f"steady within {rules.steady:.0%}"
        if elapsed_s + each_s > rules.cap_s:
            return f"not steady within {rules.steady:.0%} after {rules.cap_s:g} s"
    elif elapsed_s + each_s > 2 * rules.cap_s:
        return f"{rules.least} repetitions would take longer than {2 * rules.cap_s:g} s"
    return ""


def core_spread(samples: Sequence[float]) -> float:
    """The spread without the one sample that lies farthest from the median: one hiccup of the machine is no spread.

    All samples stay in the record, and in the spread that is reported.
    """
    middle = median(samples)
    if len(samples) < 4:
        return spread(samples)
    farthest = max(range(len(samples)), key=lambda place: abs(samples[place] - middle))
    rest = [one for place, one in enumerate(samples) if place != farthest]
    return (max(rest) - min(rest)) / middle if middle else 0.0


def summary(samples: Sequence[float], unit: str, higher_is_better: bool) -> Measured:
    """One figure over its repetitions. Raises: ValueError without samples."""
    low, high, _ = median_interval(samples)
    return Measured(unit, median(samples), low, high, spread(samples), tuple(samples), higher_is_better)
