"""Compares two runs, figure by figure: better, worse, or no difference that the samples can show. Pure.

A difference counts when two conditions hold: chance would order the samples of the two runs so one-sidedly in less than
one of a hundred cases (Mann-Whitney, exact), and the medians differ by more than the smallest difference of interest.
That limit exists because two runs on one machine also differ by what neither run's own spread shows, such as the
placement in memory or a warmer room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from bench.suite.model import Measured, Outcome

CHANCE = 0.01
#: Smallest difference of interest, relative.
SMALLEST = 0.03
#: A change of the memory's speed explains a change of a figure up to this many times as large: work that lives in a
#: shared cache loses more than work that streams. Observed: memory +7 %, training +16 %, a server's tail +20 %.
EXPLAINS = 3.0
#: Up to this many pairs of samples the test is exact, beyond that by the normal approximation.
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
    """The differences of all figures that both runs have; a benchmark that only one run has is not comparable.

    A difference that the speed of the machine's memory explains is not comparable either: other guests of the same host
    share that memory. Its speed is taken beside the benchmark and over the whole runs, as a benchmark has few samples.
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
    """By benchmark; in a run on several nodes by benchmark and node."""
    listed = list(outcomes)
    several = len({outcome.node for outcome in listed}) > 1
    return {f"{each.benchmark} on {each.node}" if several else each.benchmark: each for each in listed}


def _unlike(a: Outcome | None, b: Outcome | None) -> str:
    """Why two outcomes can't be compared; "" when they can."""
    if a is None or b is None:
        return "only one of the runs has this benchmark"
    for run, which in ((a, "first"), (b, "second")):
        if run.state != "ok":
            return f"in the {which} run: {run.state} ({run.reason})"
        if run.conditions.busy:
            return f"the machine of the {which} run was busy: {run.conditions.busy}"
    if a.payload != b.payload:
        return "the runs had different inputs"
    if a.cores != b.cores:
        return f"the runs had {a.cores} and {b.cores} cores"
    return ""


def _difference(name: str, figure: str, a: Measured, b: Measured) -> Difference:
    change = b.median / a.median - 1.0 if a.median else 0.0
    chance = by_chance(a.samples, b.samples)
    verdict: Verdict
    if abs(change) < SMALLEST:
        verdict, reason = "no difference", f"{change:+.1%}, less than {SMALLEST:.0%}"
    elif chance >= CHANCE:
        verdict, reason = "no difference", f"{change:+.1%}, but chance alone does that in {chance:.0%} of cases"
    else:
        verdict = "better" if (change > 0) is a.higher_is_better else "worse"
        reason = f"{change:+.1%}, by chance in {chance:.2%} of cases"
    return Difference(name, figure, a.unit, a.median, b.median, change, verdict, reason)


def _memory(run: Iterable[Outcome], node: str) -> list[float]:
    """The samples of memory speed on that node."""
    return [sample for outcome in run if outcome.node == node for sample in outcome.conditions.memory_gb_s]


def memory_change(before: Sequence[float], after: Sequence[float]) -> float:
    """How much faster the memory was in the second run, as a share; 0.0 where the samples show no difference."""
    if not before or not after:
        return 0.0
    change = median(after) / median(before) - 1.0
    return change if abs(change) >= SMALLEST and by_chance(before, after) < CHANCE else 0.0


def explained(found: Difference, a: Measured, memory: Sequence[float]) -> Difference:
    """The difference, as not comparable where a similar change of the memory's speed explains it.

    `memory`: changes of the memory's speed, as shares; one that explains the difference is enough.
    """
    if found.verdict not in ("better", "worse"):
        return found
    faster = found.change if a.higher_is_better else 1.0 / (1.0 + found.change) - 1.0
    for change in memory:
        if faster * change > 0 and abs(faster) <= EXPLAINS * abs(change):
            why = f"and the machine's memory {change:+.0%}: the host was busy with other guests"
            return replace(found, verdict="not comparable", reason=f"{found.change:+.1%}, {why}")
    return found


def by_chance(a: Sequence[float], b: Sequence[float]) -> float:
    """The probability that samples of one distribution are ordered at least as one-sidedly as these.

    Mann-Whitney U, two-sided, exact for few samples; 1.0 when either is empty or all samples are equal.
    Raises: ImportError without SciPy (extra `science`).
    """
    if not a or not b or len({*a, *b}) == 1:
        return 1.0
    from scipy.stats import mannwhitneyu  # pyrefly: ignore[untyped-import]  SciPy publishes no type stubs

    method = "exact" if len(a) * len(b) <= EXACT_PAIRS else "asymptotic"
    return float(mannwhitneyu(a, b, alternative="two-sided", method=method).pvalue)
