"""Whether two runs differ, figure by figure: better, worse, or no difference that these samples can show. Pure.

Two things must hold before a difference is called one: the samples of the two runs are ordered so one-sidedly that
chance would do it in less than one of a hundred cases (Mann-Whitney, exact), and the medians are farther apart than
a difference nobody should care about. Two runs of one machine also differ by what neither run's own spread shows (a
placement in memory, a warmer room): that is why there is a smallest difference of interest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from bench.suite.model import Measured, Outcome

CHANCE = 0.01
#: Relative; smaller differences are not told apart.
SMALLEST = 0.03
#: A change of the memory's speed explains one of a figure up to so many times as large: what lives in a shared cache
#: loses more than what streams. Seen: +7 % over a run, and +16 % of training, +20 % of a server's tail with it.
EXPLAINS = 3.0
#: Up to so many pairs of samples chance is counted out, beyond that by the normal approximation.
EXACT_PAIRS = 2500

Verdict = Literal["better", "worse", "no difference", "not comparable"]


@dataclass(frozen=True)
class Difference:
    """One figure of two runs."""

    benchmark: str
    figure: str
    unit: str
    before: float
    after: float
    change: float
    """after / before - 1."""
    verdict: Verdict
    reason: str = ""


def compare(before: Iterable[Outcome], after: Iterable[Outcome]) -> list[Difference]:
    """Every figure that both runs have, and what only one has as not comparable.

    So is a difference that the machine's memory explains, which others of the same host use as well: by its speed
    beside that benchmark, or over the whole runs, for a benchmark has few samples.
    """
    before, after = list(before), list(after)
    old, new = _by_name(before), _by_name(after)
    found: list[Difference] = []
    for name in [*old, *(name for name in new if name not in old)]:
        a, b = old.get(name), new.get(name)
        why = _unlike(a, b)
        if a is None or b is None or why:
            found.append(Difference(name, "", "", 0.0, 0.0, 0.0, "not comparable", why))
            continue
        memory = (
            memory_change(a.conditions.memory_gb_s, b.conditions.memory_gb_s),
            memory_change(_memory(before, a.node), _memory(after, b.node)),
        )
        for figure, measured in a.figures.items():
            if figure in b.figures:
                found.append(explained(_difference(name, figure, measured, b.figures[figure]), measured, memory))
    return found


def _by_name(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    """By benchmark; in a run of several nodes by benchmark and node."""
    listed = list(outcomes)
    several = len({one.node for one in listed}) > 1
    return {f"{one.benchmark} on {one.node}" if several else one.benchmark: one for one in listed}


def _unlike(a: Outcome | None, b: Outcome | None) -> str:
    """Why two outcomes can't be compared; "" when they can."""
    if a is None or b is None:
        return "only one of the runs has it"
    for run, which in ((a, "first"), (b, "second")):
        if run.state != "ok":
            return f"in the {which} run: {run.state} ({run.reason})"
        if run.conditions.busy:
            return f"the machine of the {which} run was busy: {run.conditions.busy}"
    if a.payload != b.payload:
        return "they ran on different inputs"
    if a.cores != b.cores:
        return f"they ran on {a.cores} and {b.cores} cores"
    return ""


def _difference(name: str, figure: str, a: Measured, b: Measured) -> Difference:
    change = b.median / a.median - 1.0 if a.median else 0.0
    chance = by_chance(a.samples, b.samples)
    if abs(change) < SMALLEST:
        verdict, reason = "no difference", f"{change:+.1%}, less than {SMALLEST:.0%}"
    elif chance >= CHANCE:
        verdict, reason = "no difference", f"{change:+.1%}, but chance alone would do that in {chance:.0%} of cases"
    else:
        verdict = "better" if (change > 0) is a.higher_is_better else "worse"
        reason = f"{change:+.1%}, by chance in {chance:.2%} of cases"
    return Difference(name, figure, a.unit, a.median, b.median, change, verdict, reason)  # type: ignore[arg-type]


def _memory(run: Iterable[Outcome], node: str) -> list[float]:
    """The yardstick's samples on that node."""
    return [sample for one in run if one.node == node for sample in one.conditions.memory_gb_s]


def memory_change(before: Sequence[float], after: Sequence[float]) -> float:
    """How much faster the machine's memory was in the second run, as a share; 0.0 where these samples show nothing."""
    if not before or not after:
        return 0.0
    change = median(after) / median(before) - 1.0
    return change if abs(change) >= SMALLEST and by_chance(before, after) < CHANCE else 0.0


def explained(found: Difference, a: Measured, memory: Sequence[float]) -> Difference:
    """The difference, or that it is none of the program's: memory changed the same way, by not much less.

    `memory`: its changes, as shares; one that explains the difference is enough.
    """
    if found.verdict not in ("better", "worse"):
        return found
    faster = found.change if a.higher_is_better else 1.0 / (1.0 + found.change) - 1.0
    for change in memory:
        if faster * change > 0 and abs(faster) <= EXPLAINS * abs(change):
            why = f"and the machine's memory {change:+.0%}: its host was busy with something else"
            return replace(found, verdict="not comparable", reason=f"{found.change:+.1%}, {why}")
    return found


def by_chance(a: Sequence[float], b: Sequence[float]) -> float:
    """How likely samples of one distribution are ordered at least so one-sidedly.

    Mann-Whitney U, two-sided, exact for few samples. 1.0 when either is empty or all are equal.
    Raises: ImportError without SciPy (extra `science`).
    """
    if not a or not b or len({*a, *b}) == 1:
        return 1.0
    from scipy.stats import mannwhitneyu

    method = "exact" if len(a) * len(b) <= EXACT_PAIRS else "asymptotic"
    return float(mannwhitneyu(a, b, alternative="two-sided", method=method).pvalue)
