"""Decides when a fit is due and of what, and how long its forecast stays in force. Pure.

A forecast is made at the end of each step, for the step in which a node started now would be ready. Delays on the way
(the newest sample, the fit itself) count as part of the start. When a fit fails, the last forecast stays in force for
IN_FORCE_STEPS; after that there is none, and decisions are reactive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple

import msgspec

from mesh.kinds.base import Resources
from mesh.leader.metrics import OPEN, Work
from scaling.domain.config import REACTIVE, ScalingConfig
from scaling.domain.model import Forecast, Offer
from scaling.forecast.capacity_target import CapacityTarget
from scaling.forecast.history import HOLD_S, THINNED_S, History, bounds, series
from scaling.observation.observe import PoolSnapshot, pool_of_kind, slots_per_task

#: Prophet takes part from steps of this length on, seconds: its fits take longer than shorter steps leave time for.
PROPHET_STEP_S = THINNED_S[0]
#: A forecast is in force until this many steps, plus LATE_S for a sample and a fit, after the last load it knew.
IN_FORCE_STEPS, LATE_S = 3, 120.0
#: The pause after a fit, as a multiple of the time it took: whatever goes wrong, fits take a tenth of one core at most.
REST = 9.0


@dataclass(frozen=True)
class FitContext:
    """What the last control cycle saw that a forecast depends on."""

    config: ScalingConfig
    pools: Mapping[str, tuple[float, float]]
    """pool -> (slots per node, seconds that a start takes)"""
    groups: Mapping[Work, str] = field(default_factory=dict[Work, str])
    """(kind, pool of lanes) -> the scaler's pool, "" for none; work that is missing here has no lane now."""


class FitRequest(msgspec.Struct, frozen=True):
    """The history of one pool, and what to forecast from it."""

    pool: str
    loads: tuple[float, ...]
    step_s: float
    start_steps: int
    target: CapacityTarget
    prophet_s: float
    """Seconds that Prophet may take; 0: without Prophet."""


class FitResult(msgspec.Struct, frozen=True):
    """The forecast of one pool, loads in nodes. Without a model there is no forecast, and `why` says why."""

    pool: str
    steps: int
    took_s: float
    why: str
    model: str = ""
    at_start: float = 0.0
    until_start: float = 0.0
    median: float = 0.0
    sure: float = 0.0
    """Probability that the load is not above `at_start`."""
    lower: float | None = None
    """The load falls below it as often as it rises above `upper`."""
    upper: float | None = None
    """The upper quantile of the load when a node started now is ready."""
    trusted: bool = False
    ratio: float | None = None
    """Its cost over reactive's at equal violations, by the gate."""


@dataclass(frozen=True)
class StoredFit:
    """A result, and what it was made from."""

    result: FitResult
    end: float
    """When the last load it knew ended, Unix seconds."""
    step_s: float
    target: CapacityTarget
    at: float
    """When it arrived, Unix seconds."""


class FitKey(NamedTuple):
    """What a fit is made from; a fit with the key of the last one would give the same result."""

    within: tuple[float, float, float]
    """(begin, end, step) of the history"""
    target: CapacityTarget
    pools: tuple[str, ...]


def capacity_target_of(config: ScalingConfig) -> CapacityTarget:
    """What the settings ask to hold for a future load."""
    return CapacityTarget(config.quantile, config.violation_nodes)


def fit_context(snapshot: PoolSnapshot, offers: tuple[Offer, ...], config: ScalingConfig) -> FitContext:
    """The context of a cycle. A start takes as long as the slowest offer that suits the pool."""
    default_s = Offer("", "").start_s
    pools: dict[str, tuple[float, float]] = {}
    for pool in snapshot.pools:
        starts_s = [offer.start_s for offer in offers if offer.has_gpu or not pool.needs_gpu]
        pools[pool.name] = float(pool.slots), max(starts_s, default=default_s)
    return FitContext(config, pools, snapshot.groups)


def due_fit(history: History, context: FitContext, last: FitKey | None, now: float) -> FitKey | None:
    """The fit to make now; None when there is no history, or nothing new since the `last` one."""
    within = bounds(history, now) if context.config.mode != REACTIVE else None
    if within is None or now - within[1] > within[2] + HOLD_S:
        return None
    key = FitKey(within, capacity_target_of(context.config), tuple(sorted(context.pools)))
    return None if key == last else key


def fit_requests(
    history: History, key: FitKey, context: FitContext, resources: Mapping[str, Resources], took_s: float, now: float
) -> list[FitRequest]:
    """A request for each pool with a history. `took_s`: how long the last fit took."""
    requests: list[FitRequest] = []
    _, end, step_s = key.within
    for pool, (slots, start_s) in sorted(context.pools.items()):
        works = [work for work in history.work_s if _pool_of_work(work, context, resources) == pool]
        if not works:
            continue
        nodes = {work: slots_per_task(work[0], resources, slots) / slots for work in works}
        loads = series(history, nodes, key.within).loads
        late_s = max(0.0, now - end) + took_s
        prophet_s = context.config.forecast_limit_s / 2 / len(context.pools) if step_s >= PROPHET_STEP_S else 0.0
        start_steps = ceil((start_s + late_s) / step_s)
        requests.append(FitRequest(pool, loads, step_s, start_steps, key.target, prophet_s))
    return requests


def _pool_of_work(work: Work, context: FitContext, resources: Mapping[str, Resources]) -> str:
    """The scaler's pool of this work. Work with requirements counts only while it has a lane, which tells the pool."""
    kind, pool = work
    return context.groups.get(work, pool_of_kind(kind, resources) if pool == OPEN else "")


def is_in_force(stored: StoredFit, config: ScalingConfig, now: float) -> bool:
    """Whether decisions may still be given this forecast."""
    is_fresh = now - stored.end <= IN_FORCE_STEPS * stored.step_s + LATE_S
    return bool(stored.result.model) and is_fresh and stored.target == capacity_target_of(config)


def current_forecasts(stored: Mapping[str, StoredFit], context: FitContext, now: float) -> dict[str, Forecast]:
    """pool -> its forecast, as `decide` takes it, for the pools that have one in force."""
    if context.config.mode == REACTIVE:
        return {}
    results = {
        pool: fit.result
        for pool, fit in sorted(stored.items())
        if pool in context.pools and is_in_force(fit, context.config, now)
    }
    return {
        pool: Forecast(
            at_start=result.at_start, until_start=result.until_start, median=result.median, trusted=result.trusted,
            model=result.model, why=result.why, sure=result.sure,
        )
        for pool, result in results.items()
    }  # fmt: skip


def document(
    stored: Mapping[str, StoredFit], context: FitContext, history: History, problem: str, now: float
) -> dict[str, dict[str, Any]]:
    """pool -> its forecast, or why there is none, for people and programs. `problem`: of the last fit, "" for none."""
    documents: dict[str, dict[str, Any]] = {}
    for pool in sorted(context.pools):
        fit = stored.get(pool)
        in_force = fit is not None and is_in_force(fit, context.config, now) and context.config.mode != REACTIVE
        why = fit.result.why if fit is not None and in_force else _missing(fit, context.config, history, now)
        made: dict[str, Any] = {"in_force": in_force, "why": "; ".join(part for part in (why, problem) if part)}
        if fit is not None:
            result, none = fit.result, not fit.result.model
            made |= {
                "at": fit.at, "known_until": fit.end, "step_s": fit.step_s, "steps": result.steps,
                "took_s": result.took_s, "model": result.model, "quantile": fit.target.quantile,
                "sure": None if none else result.sure, "ratio": result.ratio,
                "trusted": in_force and result.trusted, "median": None if none else result.median,
                "at_start": None if none else result.at_start,
                "until_start": None if none else result.until_start, "lower": result.lower, "upper": result.upper,
            }  # fmt: skip
        documents[pool] = made
    return documents


def _missing(stored: StoredFit | None, config: ScalingConfig, history: History, now: float) -> str:
    """Why no forecast is in force."""
    if config.mode == REACTIVE:
        return "the mode is reactive"
    if stored is None:
        return "no forecast has been made yet" if history.covered_s else "there is no load history yet"
    if not stored.result.model:
        return stored.result.why
    if stored.target != capacity_target_of(config):
        return "the last forecast was made with other settings"
    return f"the last forecast is too old: it knew the load until {now - stored.end:.0f} s ago"
