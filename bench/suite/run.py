"""One run of the suite on this machine: warm up, repeat until steady, check every answer, keep the outcome.

What ends a benchmark without figures is an outcome too: a wrong answer, a library that is not there, a run that was
cancelled. None of them ends the others.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import environment
from bench.suite import conditions, repetition
from bench.suite.local import Worker, WorkFailed, used_s, worker
from bench.suite.model import SCHEMA, Benchmark, Conditions, Measured, Outcome, Progress, State
from bench.suite.repetition import Rules
from mesh.errors import QueztlError
from node.probes.packages import probe_packages

#: Called after every change.
Told = Callable[[Progress], None]
Keep = Callable[[Outcome], None]
Repeat = Callable[[dict[str, Any]], Any]


@dataclass(frozen=True)
class Setting:
    """What all benchmarks of a run have in common."""

    run: str
    quick: bool
    rules: Rules
    cores: int
    node: str = ""
    facts: dict[str, Any] | None = None
    """`environment.describe()`, asked once a run."""


async def run_all(
    benchmarks: Sequence[Benchmark], setting: Setting, folder: Path, told: Told, keep: Keep
) -> list[Outcome]:
    """Each benchmark in turn, in a fresh worker process each; `keep` is given every outcome at once.

    A cancellation becomes the outcome of the benchmark that was under way, and is raised again.
    """
    progress = Progress(total=len(benchmarks))
    for benchmark in benchmarks:
        progress.benchmark, progress.repetition, progress.last = benchmark.name, 0, ""
        told(progress)
        began = time.time()
        try:
            outcome = await _one(benchmark, setting, folder, progress, told)
        except asyncio.CancelledError:
            keep(_outcome(benchmark, setting, began, "cancelled", "the run was stopped"))
            raise
        progress.outcomes.append(outcome)
        progress.done += 1
        keep(outcome)
        told(progress)
    return progress.outcomes


async def _one(benchmark: Benchmark, setting: Setting, folder: Path, progress: Progress, told: Told) -> Outcome:
    began = time.time()
    missing = lacking(benchmark.kind, folder)
    if missing:
        return _outcome(benchmark, setting, began, "missing library", missing)
    load = await asyncio.to_thread(conditions.load_before)
    async with worker(folder / "worker", setting.cores) as made:
        before, ours_s = conditions.look(), -used_s()
        try:
            state, reason, results = await _repeat(benchmark, setting, made, progress, told)
        except WorkFailed as failed:
            state, reason, results = "failed", failed.message, []
        except QueztlError as refused:
            state, reason, results = "failed", refused.message, []
        ours_s += used_s()
    was = conditions.judge(load, before, conditions.look(), ours_s, os.cpu_count() or 1)
    return _outcome(benchmark, setting, began, state, reason, results, was)


async def _repeat(
    benchmark: Benchmark, setting: Setting, made: Worker, progress: Progress, told: Told
) -> tuple[State, str, list[dict[str, Any]]]:
    """The first repetition loads libraries, fills caches, and does not count. But its answer is checked, too."""
    payload = payload_of(benchmark, setting.quick)
    results: list[dict[str, Any]] = []
    samples: list[float] = []
    began = time.perf_counter()
    for number in range(setting.rules.most + 1):
        result, _ = await made.repeat(benchmark.kind, payload)
        wrong = benchmark.verify(result)
        if wrong:
            return "wrong answer", wrong, []
        if number == 0:
            began = time.perf_counter()
            continue
        results.append(result)
        headline = benchmark.headline
        samples.append(value_of(result, headline.path))
        progress.repetition = number
        progress.last = f"{samples[-1]:,.4g} {headline.unit}"
        told(progress)
        why = repetition.stop(samples, time.perf_counter() - began, setting.rules)
        if why:
            return "ok", why, results
    return "ok", "", results


def payload_of(benchmark: Benchmark, quick: bool) -> dict[str, Any]:
    """The fixed input of a benchmark."""
    return benchmark.quick if quick else benchmark.payload


def value_of(result: dict[str, Any], path: Sequence[str]) -> float:
    """The number at `path` in a result. Raises: WorkFailed when there is none."""
    value: Any = result
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WorkFailed("failed", f"its result has no number {'.'.join(path)}")
    return float(value)


def lacking(kind: str, folder: Path) -> str:
    """Why this machine can't run `kind`, and the command that helps; "" when it can."""
    from mesh.kinds.table import KINDS

    (info,), _ = probe_packages([KINDS[kind]], folder)
    return "" if info.available else f"{info.reason}: {info.how_to_install}"


def _outcome(
    benchmark: Benchmark,
    setting: Setting,
    began: float,
    state: State,
    reason: str,
    results: Sequence[dict[str, Any]] = (),
    was: Conditions | None = None,
) -> Outcome:
    facts = setting.facts or environment.describe()
    return Outcome(
        schema=SCHEMA,
        run=setting.run,
        benchmark=benchmark.name,
        kind=benchmark.kind,
        state=state,
        at=began,
        took_s=round(time.time() - began, 3),
        reason=reason,
        figures=measured(benchmark, results),
        headline=benchmark.headline.name,
        payload=payload_of(benchmark, setting.quick),
        facts={name: value for name, value in (results[-1] if results else {}).items() if is_fact(value)},
        node=setting.node,
        cores=setting.cores,
        quick=setting.quick,
        conditions=was or Conditions(),
        machine=facts["machine"],
        versions=facts["versions"],
        commit=facts["commit"],
    )


def measured(benchmark: Benchmark, results: Sequence[dict[str, Any]]) -> dict[str, Measured]:
    """Every figure of a benchmark over its repetitions."""
    if not results:
        return {}
    return {
        one.name: repetition.summary([value_of(result, one.path) for result in results], one.unit, one.higher_is_better)
        for one in benchmark.figures
    }


def is_fact(value: Any) -> bool:
    """Whether a field of a result says something of how it was made: short texts and yes or no."""
    return isinstance(value, bool) or (isinstance(value, str) and 0 < len(value) <= 120)
