"""Decides how often a benchmark is repeated: until its figure is steady, or the limit is reached. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bench.harness.measure import median_interval, spread
from bench.suite.model import Measured


@dataclass(frozen=True)
class Rules:
    """When the repetitions end."""

    least: int = 5
    """Fewest repetitions of a pass, unless they would take more than twice `cap_s`."""
    most: int = 25
    steady: float = 0.05
    """A figure is steady when the spread of its middle samples is below this."""
    cap_s: float = 60.0
    """Once there are `least`, no repetition begins that would end after this time; before, after twice this time."""
    passes: int = 1
    """Number of passes, with the other benchmarks in between."""


QUICK = Rules(most=7, cap_s=5.0)
#: At least six repetitions in total, for at most a minute.
FULL = Rules(least=3, most=13, cap_s=30.0, passes=2)


def stop(samples: Sequence[float], elapsed_s: float, rules: Rules) -> str:
    """Why the repetitions end; "" when there is another one.

    `samples`: the headline figure of each repetition so far; `elapsed_s`: seconds since the first one began.
    """
    made = len(samples)
    if not made:
        return ""
    each_s = elapsed_s / made
    if made >= rules.most:
        return f"{made} repetitions, the maximum"
    if made >= rules.least:
        if core_spread(samples) < rules.steady:
            return f"steady within {rules.steady:.0%}"
        if elapsed_s + each_s > rules.cap_s:
            return f"not steady within {rules.steady:.0%} after {rules.cap_s:g} s"
    elif elapsed_s + each_s > 2 * rules.cap_s:
        return f"{rules.least} repetitions would take longer than {2 * rules.cap_s:g} s"
    return ""


def core_spread(samples: Sequence[float]) -> float:
    """The spread without the sample farthest from the median, so that one hiccup of the machine does not count.

    All samples stay in the record and in the reported spread.
    """
    center = median(samples)
    if len(samples) < 4:
        return spread(samples)
    farthest = max(range(len(samples)), key=lambda place: abs(samples[place] - center))
    rest = [sample for place, sample in enumerate(samples) if place != farthest]
    return (max(rest) - min(rest)) / center if center else 0.0


def summary(samples: Sequence[float], unit: str, higher_is_better: bool) -> Measured:
    """One figure over its repetitions. Raises: ValueError without samples."""
    low, high, _ = median_interval(samples)
    return Measured(unit, median(samples), low, high, spread(samples), tuple(samples), higher_is_better)
