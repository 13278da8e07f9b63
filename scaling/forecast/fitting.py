"""What a fit is asked, when one is due, and how long its answer holds. Pure.

A forecast is made at the end of a step for the step in which a node started now would be ready, so it is made anew
with each step. What is late on the way (the newest sample, the fit itself) counts as part of the start. When a fit
fails, the last forecast stays in force for IN_FORCE_STEPS; then there is none, and decisions are reactive.
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
from scaling.observation.observe import PoolSnapshot, machine_of, slots_of

#: Prophet takes part from steps of this length on, seconds: its fits take longer than shorter ones leave time for.
PROPHET_STEP_S = THINNED_S[0]
#: A forecast is in force until so many steps, and LATE_S for a sample and a fit to come, after the last load it knew.
IN_FORCE_STEPS, LATE_S = 3, 120.0
#: After a fit there is none for so many times as long as it took: a tenth of one core at most, whatever goes wrong.
REST = 9.0
WEEK_S = 7 * 86400.0


@dataclass(frozen=True)
class Looked:
    """What the controller's last look saw that a forecast must know."""

    config: ScalingConfig
    pools: Mapping[str, tuple[float, float]]
    """pool -> (slots a node, seconds that a start takes)"""
    groups: Mapping[Work, str] = field(default_factory=dict)
    """(kind, pool of lanes) -> the pool it is work of, "" for none; what is not named had no lane just now."""


class Asked(msgspec.Struct, frozen=True):
    """One pool's history, and what is asked of it."""

    pool: str
    loads: tuple[float, ...]
    step_s: float
    start_steps: int
    aim: CapacityTarget
    prophet_s: float
    """Seconds that Prophet may take; 0: it is left out."""


class Fit(msgspec.Struct, frozen=True):
    """The answer: loads in nodes. Without a model there is no forecast, and `why` says why."""

    pool: str
    steps: int
    took_s: float
    why: str
    model: str = ""
    at_start: float = 0.0
    until_start: float = 0.0
    median: float = 0.0
    sure: float = 0.0
    """How likely the load is to be no higher than `at_start`."""
    lower: float | None = None
    """The load falls under it as often as it rises over `upper`."""
    upper: float | None = None
    """The upper quantile of the load when a node started now is ready."""
    trusted: bool = False
    ratio: float | None = None
    """Its cost over reactive's at equal violations, by the gate."""


@dataclass(frozen=True)
class Kept:
    """A fit, and what it was made of."""

    fit: Fit
    end: float
    """The last load it knew ended then, Unix seconds."""
    step_s: float
    aim: CapacityTarget
    at: float
    """When it came."""


class Due(NamedTuple):
    """What the next fit would be made of; one that equals the last one would say nothing new."""

    within: tuple[float, float, float]
    aim: CapacityTarget
    pools: tuple[str, ...]


def capacity_target_of(config: ScalingConfig) -> CapacityTarget:
    """What the settings want held of a load to come."""
    return CapacityTarget(config.quantile, config.violation_nodes)


def looked(seen: PoolSnapshot, offers: tuple[Offer, ...], config: ScalingConfig) -> Looked:
    """With the slowest start among the offers that suit the pool, as for the schedule."""
    default = Offer("", "").start_s
    starts = {
        pool.name: max((one.start_s for one in offers if one.has_gpu or not pool.needs_gpu), default=default)
        for pool in seen.pools
    }
    pools = {pool.name: (float(pool.slots), starts[pool.name]) for pool in seen.pools}
    return Looked(config, pools, seen.groups)


def due(history: History, seen: Looked, last: Due | None, now: float) -> Due | None:
    """What there is to fit now; None: nothing, or nothing new."""
    within = bounds(history, now) if seen.config.mode != REACTIVE else None
    if within is None or now - within[1] > within[2] + HOLD_S:
        return None
    found = Due(within, capacity_target_of(seen.config), tuple(sorted(seen.pools)))
    return None if found == last else found


def asked(
    history: History, what: Due, seen: Looked, resources: Mapping[str, Resources], took_s: float, now: float
) -> list[Asked]:
    """For each pool with a history. `took_s`: how long fits take, by the last one."""
    found = []
    _, end, step_s = what.within
    for pool, (slots, start_s) in sorted(seen.pools.items()):
        works = [work for work in history.work_s if _group(work, seen, resources) == pool]
        if not works:
            continue
        nodes = {work: slots_of(work[0], resources, slots) / slots for work in works}
        loads = series(history, nodes, what.within).loads
        late_s = max(0.0, now - end) + took_s
        prophet_s = seen.config.forecast_limit_s / 2 / len(seen.pools) if step_s >= PROPHET_STEP_S else 0.0
        found.append(Asked(pool, loads, step_s, ceil((start_s + late_s) / step_s), what.aim, prophet_s))
    return found


def _group(work: Work, seen: Looked, resources: Mapping[str, Resources]) -> str:
    """The pool that work is of. What asks for more than any node counts while it has a lane, which tells."""
    kind, pool = work
    return seen.groups.get(work, machine_of(kind, resources) if pool == OPEN else "")


def holds(one: Kept, config: ScalingConfig, now: float) -> bool:
    """Whether it is in force."""
    fresh = now - one.end <= IN_FORCE_STEPS * one.step_s + LATE_S
    return bool(one.fit.model) and fresh and one.aim == capacity_target_of(config)


def forecasts(kept: Mapping[str, Kept], seen: Looked, now: float) -> dict[str, Forecast]:
    """pool -> its forecast, as `decide` takes them, for those that have one in force."""
    if seen.config.mode == REACTIVE:
        return {}
    return {
        pool: Forecast(
            at_start=one.fit.at_start, until_start=one.fit.until_start, median=one.fit.median,
            trusted=one.fit.trusted, model=one.fit.model, why=one.fit.why, sure=one.fit.sure,
        )
        for pool, one in sorted(kept.items())
        if pool in seen.pools and holds(one, seen.config, now)
    }  # fmt: skip


def document(
    kept: Mapping[str, Kept], seen: Looked, history: History, problem: str, now: float
) -> dict[str, dict[str, Any]]:
    """pool -> its forecast, or why there is none, for people and programs. `problem`: of the last fit, "" for none."""
    found: dict[str, dict[str, Any]] = {}
    for pool in sorted(seen.pools):
        one = kept.get(pool)
        in_force = one is not None and holds(one, seen.config, now) and seen.config.mode != REACTIVE
        why = one.fit.why if one is not None and in_force else _missing(one, seen.config, history, now)
        told: dict[str, Any] = {"in_force": in_force, "why": "; ".join(part for part in (why, problem) if part)}
        if one is not None:
            fit, none = one.fit, not one.fit.model
            told |= {
                "at": one.at, "known_until": one.end, "step_s": one.step_s, "steps": fit.steps, "took_s": fit.took_s,
                "model": fit.model, "quantile": one.aim.quantile, "sure": None if none else fit.sure,
                "ratio": fit.ratio, "trusted": in_force and fit.trusted, "median": None if none else fit.median,
                "at_start": None if none else fit.at_start, "until_start": None if none else fit.until_start,
                "lower": fit.lower, "upper": fit.upper,
            }  # fmt: skip
        found[pool] = told
    return found


def _missing(one: Kept | None, config: ScalingConfig, history: History, now: float) -> str:
    if config.mode == REACTIVE:
        return "the mode is reactive"
    if one is not None and not one.fit.model:
        return one.fit.why
    if one is not None and one.aim != capacity_target_of(config):
        return "the last forecast was made by other settings"
    if one is not None:
        return f"the last forecast knew the load until {now - one.end:.0f} s ago, and is too old"
    return "no forecast has been made yet" if history.told_s else "there is no load history yet"
