"""One run of the suite in one place: warm up, repeat until steady, check every answer, keep the outcome.

A benchmark without figures has an outcome too: a wrong answer, a missing library, a cancelled run. None of them ends
the other benchmarks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from bench.harness import environment
from bench.suite import repetition
from bench.suite.model import SCHEMA, Benchmark, Conditions, Figure, Measured, Outcome, Part, Progress, State
from bench.suite.passes import merged
from bench.suite.place import Place, WorkFailed
from bench.suite.repetition import Rules
from mesh.errors import QueztlError

#: Called after every change of the progress.
OnProgress = Callable[[Progress], None]
Keep = Callable[[Outcome], None]
#: Opens a fresh place for each benchmark: none finds libraries that another one has loaded.
Open = Callable[[], AbstractAsyncContextManager[Place]]


@dataclass(frozen=True)
class Setting:
    """What all benchmarks of a run have in common."""

    run: str
    quick: bool
    rules: Rules
    cores: int
    node: str = ""
    facts: dict[str, Any] | None = None
    """`environment.describe()`, once per run."""


async def run_all(
    benchmarks: Sequence[Benchmark], setting: Setting, open_place: Open, on_progress: OnProgress, keep: Keep
) -> list[Outcome]:
    """Run each benchmark in turn, in as many passes as the rules say; each outcome goes to `keep` at once.

    A cancellation becomes the outcome of the running benchmark and is raised again; a benchmark that lacks a pass is
    kept as it is.
    """
    rules, made = setting.rules, dict[str, list[Outcome]]()
    progress = Progress(total=len(benchmarks) * rules.passes)
    for number in range(1, rules.passes + 1):
        for benchmark in benchmarks:
            progress.benchmark, progress.repetition, progress.last = benchmark.name, 0, ""
            on_progress(progress)
            before, began = made.setdefault(benchmark.name, []), time.time()
            try:
                if all(outcome.state == "ok" for outcome in before):
                    async with open_place() as place:
                        before.append(await _run_benchmark(benchmark, setting, place, progress, on_progress))
            except asyncio.CancelledError:
                if not before:
                    keep(_outcome(benchmark, setting, began, "cancelled", "the run was stopped"))
                for passes in list(made.values())[len(progress.outcomes) :]:
                    if passes:
                        keep(merged(passes, f"the run was stopped in pass {number} of {rules.passes}"))
                raise
            if number == rules.passes:
                progress.outcomes.append(merged(before))
                keep(progress.outcomes[-1])
            progress.done += 1
            on_progress(progress)
    return progress.outcomes


async def _run_benchmark(
    benchmark: Benchmark, setting: Setting, place: Place, progress: Progress, on_progress: OnProgress
) -> Outcome:
    began = time.time()
    for kind in dict.fromkeys(part.kind for part in benchmark.parts):
        if missing := await place.lacking(kind):
            return _outcome(benchmark, setting, began, "missing library", missing)
    found: list[tuple[Part, list[dict[str, Any]]]] = []
    state: State = "ok"
    reasons: list[str] = []
    try:
        await place.begin()
    except QueztlError as failed:
        return _outcome(benchmark, setting, began, "failed", failed.message)
    for part in benchmark.parts:
        try:
            state, reason, results = await _repeat(part, setting, place, progress, on_progress)
        except QueztlError as failed:
            state, reason, results = "failed", failed.message, list[dict[str, Any]]()
        reasons.append(f"{part.name}: {reason}")
        if state != "ok":
            found.clear()
            break
        found.append((part, results))
    return _outcome(benchmark, setting, began, state, "; ".join(reasons), found, await place.end())


async def _repeat(
    part: Part, setting: Setting, place: Place, progress: Progress, on_progress: OnProgress
) -> tuple[State, str, list[dict[str, Any]]]:
    """(state, why the repetitions ended, the results). The first repetition warms up: only its answer counts."""
    payload, figure = payload_of(part, setting.quick), part.figures_of(setting.quick)[0]
    if part.make is not None:
        payload = await asyncio.to_thread(part.make, payload)
    results: list[dict[str, Any]] = []
    samples: list[float] = []
    began = time.perf_counter()
    while True:
        result, ran_s = await place.repeat(part.kind, payload)
        wrong = part.verify(payload, result)
        if wrong:
            return "wrong answer", wrong, []
        result["ran_s"] = ran_s
        samples.append(value_of(result, figure))
        progress.repetition, progress.last = len(results), f"{part.name}: {samples[-1]:,.4g} {figure.unit}"
        on_progress(progress)
        if len(samples) == 1 and not results:
            samples.clear()
            began = time.perf_counter()
            results.append({})  # the warm-up is over
            continue
        results.append(result)
        why = repetition.stop(samples, time.perf_counter() - began, setting.rules)
        if why:
            return "ok", why, results[1:]


def payload_of(part: Part, quick: bool) -> dict[str, Any]:
    """The payload of a part, before `make`."""
    return part.quick if quick else part.payload


def value_of(result: Mapping[str, Any], figure: Figure) -> float:
    """The figure in a result. Raises: WorkFailed when the result lacks it."""
    value: Any = result
    for step in figure.path:
        value = value.get(step) if isinstance(value, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WorkFailed(f"the result has no number {'.'.join(figure.path)}")
    return figure.of(float(value))


def _outcome(
    benchmark: Benchmark,
    setting: Setting,
    began: float,
    state: State,
    reason: str,
    found: Sequence[tuple[Part, list[dict[str, Any]]]] = (),
    conditions: Conditions | None = None,
) -> Outcome:
    facts = setting.facts or environment.describe()
    return Outcome(
        schema=SCHEMA,
        run=setting.run,
        benchmark=benchmark.name,
        state=state,
        at=began,
        took_s=round(time.time() - began, 3),
        reason=reason,
        figures=measured(found, setting.quick),
        headline=benchmark.headline.name,
        payload={part.name: payload_of(part, setting.quick) for part in benchmark.parts},
        facts={part.name: facts_of(results[-1]) for part, results in found},
        node=setting.node,
        cores=setting.cores,
        quick=setting.quick,
        conditions=conditions or Conditions(),
        machine=facts["machine"],
        versions=facts["versions"],
        commit=facts["commit"],
    )


def measured(found: Sequence[tuple[Part, list[dict[str, Any]]]], quick: bool) -> dict[str, Measured]:
    """Every figure over its repetitions."""
    return {
        figure.name: repetition.summary(
            [value_of(result, figure) for result in results], figure.unit, figure.higher_is_better
        )
        for part, results in found
        for figure in part.figures_of(quick)
    }


def facts_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a result that say how it was made: short texts and booleans."""
    return {
        name: value
        for name, value in result.items()
        if isinstance(value, bool) or (isinstance(value, str) and 0 < len(value) <= 120)
    }
