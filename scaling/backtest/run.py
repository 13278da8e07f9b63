"""The back-test of one demand: each policy's settings are tuned on the first 60 %, then scored on the rest. Pure.

The demand is scaled so that the 95th percentile of its first part keeps 20 nodes busy. Decisions are made by the same
`decide` as in a mesh, from what was known at the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from scaling.backtest import shortlist
from scaling.backtest.simulate import Run, Scenario, simulate
from scaling.backtest.tuning import FORECAST_LEVELS, MANY, ORACLE, POLICIES, QUANTILE, STATIC, Tuned, tune
from scaling.domain.config import HYBRID, PREDICTIVE, REACTIVE
from scaling.domain.model import Forecast
from scaling.forecast.capacity_target import LEVELS, CapacityPlan, CapacityTarget, plan_capacity
from scaling.forecast.gate import Gate, forecasts_by_origin, gate
from scaling.forecast.walk_forward import WalkForward, walk_forward

if TYPE_CHECKING:
    from numpy import ndarray

TRAINING = 0.6
#: The first part of the training is only history: forecasts need some before they can be tuned.
HISTORY = 0.2
#: Share of the steps that may be violating.
VIOLATIONS = 0.01
BUSY_NODES, AT_QUANTILE = 20.0, 0.95
#: Steps that run before those that count, so that a run does not begin with an empty memory.
WARM_UP = 60
#: Most levels of safety that are tried to bring policies to equal violations.
EQUALIZING = 40

#: (what is being done, share of the whole that is done)
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Scored:
    """The run of a policy over the scored part."""

    tuned: Tuned
    run: Run
    """From the first scored step on"""


class Backtest:
    """One series: its demand, its forecasts, and every policy's runs over it."""

    def __init__(
        self,
        loads: Sequence[float] | ndarray,
        scenario: Scenario,
        start_steps: int,
        more: Mapping[str, Mapping[int, ndarray]] | None = None,
        progress: Progress = lambda what, share: None,
    ) -> None:
        """`loads`: one per step; `start_steps`: steps that a start takes; `more`: as in `walk_forward`."""
        import numpy as np

        self.split = int(len(loads) * TRAINING)
        known = np.asarray(loads, dtype=float)
        top = float(np.quantile(known[: self.split], AT_QUANTILE)) or float(known[: self.split].max())
        self.scale = BUSY_NODES / top if top > 0 else 1.0
        self.loads = known * self.scale
        self.demand: list[float] = self.loads.tolist()
        self.scenario, self.start_steps, self._progress = scenario, start_steps, progress
        self._more = {
            name: {ahead: forecasts * self.scale for ahead, forecasts in by_ahead.items()}
            for name, by_ahead in (more or {}).items()
        }
        self._plans: dict[CapacityTarget, CapacityPlan] = {}

    @cached_property
    def forecasts(self) -> WalkForward:
        """The forecasts made at each step."""
        self._progress("forecasts", 0.35)
        quantiles = sorted({*LEVELS, QUANTILE})
        return walk_forward(self.loads, self.scenario.step_s, self.start_steps, quantiles, self._more)

    @cached_property
    def gate(self) -> Gate:
        """Whether the forecasts were trusted."""
        return gate(self.loads, plan_capacity(self.forecasts, CapacityTarget(QUANTILE)), self.scenario.step_s)

    def forecasts_for(self, tuned: Tuned) -> list[Forecast | None]:
        """The forecast at each step, as `decide` takes it; for the oracle the actual load."""
        if tuned.policy == ORACLE:
            return self._actual
        target = tuned.capacity_target
        if target not in self._plans:
            self._plans[target] = plan_capacity(self.forecasts, target)
        return forecasts_by_origin(self._plans[target], self.gate)

    @cached_property
    def _actual(self) -> list[Forecast | None]:
        lag, size = self.start_steps, len(self.demand)
        found: list[Forecast | None] = []
        for t in range(size):
            coming = self.demand[t : t + lag + 1]
            found.append(Forecast(coming[-1], max(coming), coming[-1], True, "the actual load"))
        return found

    def run(self, tuned: Tuned, first: int, end: int, violations: float, cost_usd: float, keep: bool = False) -> Run:
        """Steps `first` to `end` after a warm-up. The result begins at `first`, unless the run stopped early.

        `violations`, `cost_usd`: limits past which the run stops early; `keep`: keep the decisions.
        """
        warm = max(0, first - WARM_UP)
        forecasts = self.forecasts_for(tuned) if tuned.policy not in (REACTIVE, STATIC) else None
        done = simulate(
            self.demand, warm, end, self.scenario, tuned.config(self.scenario.step_s),
            (lambda step: forecasts[step]) if forecasts else (lambda step: None),
            violations, cost_usd, first, keep,
        )  # fmt: skip
        for values in (done.ready, done.cost_usd, done.node_h, done.decisions):
            del values[: first - warm]
        return done

    def tuned(self) -> dict[str, Tuned]:
        """Each policy's cheapest settings with at most 1 % violations on the training part."""
        first = int(self.split * HISTORY / TRAINING)
        part, lag, step_s = slice(first, self.split), self.start_steps + 1, self.scenario.step_s
        limit = VIOLATIONS * (self.split - first)

        def run(settings: Tuned, violations: float, cost_usd: float) -> Run:
            return self.run(settings, first, self.split, violations, cost_usd)

        self._progress("settings of static", 0.1)
        nodes = shortlist.static_nodes(self.loads[part])
        found = {ORACLE: Tuned(ORACLE, 0), STATIC: tune([(Tuned(STATIC, 1), nodes)], run, limit, (1, MANY))}
        self._progress("settings of reactive", 0.15)
        found[REACTIVE] = tune(shortlist.reactive_shapes(self.loads, lag, step_s, part), run, limit)
        level = shortlist.forecast_level(self.loads, self.forecasts, part)
        for number, policy in enumerate((PREDICTIVE, HYBRID)):
            self._progress(f"settings of {policy}", 0.4 + 0.15 * number)
            shape = replace(found[REACTIVE], policy=policy)
            found[policy] = tune([(shape, level)], run, limit, (0, FORECAST_LEVELS - 1))
        return found

    def scored(self, tuned: Mapping[str, Tuned]) -> dict[str, tuple[Scored, Scored | None]]:
        """policy -> (run as chosen, run with the least safety that leaves at most 1 % violations, or None)."""
        found: dict[str, tuple[Scored, Scored | None]] = {}
        for number, policy in enumerate(POLICIES):
            self._progress(f"scoring {policy}", 0.7 + 0.06 * number)
            chosen = self._score(tuned[policy], float("inf"))
            assert chosen is not None
            found[policy] = chosen, self._equalized(chosen)
        return found

    @property
    def allowed(self) -> float:
        """Violating steps that the scored part may have."""
        return VIOLATIONS * (len(self.demand) - self.split)

    def _score(self, tuned: Tuned, violations: float) -> Scored | None:
        done = self.run(tuned, self.split, len(self.demand), violations, float("inf"))
        return None if done.violating > violations else Scored(tuned, done)

    def _equalized(self, chosen: Scored) -> Scored | None:
        if chosen.tuned.policy == ORACLE:
            return chosen
        holds = chosen.run.violating <= self.allowed
        best = chosen if holds else None
        for by in range(1, EQUALIZING):
            moved = chosen.tuned.safer(-by if holds else by)
            if moved == chosen.tuned.safer(-by + 1 if holds else by - 1):
                break
            found = self._score(moved, self.allowed)
            if holds and found is None:
                break
            if found is not None:
                best = found
                if not holds:
                    break
        return best
