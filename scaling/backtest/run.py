"""How each policy would have done on a demand that was: settings from the first 60 %, scored on the rest. Pure.

The demand is scaled so that the 95th percentile of its first part keeps 20 nodes busy. Everything is decided by the
same `decide` as in a mesh; a decision is shown only what was known then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from scaling.backtest import shortlist
from scaling.backtest.simulate import Run, World, replay
from scaling.backtest.tuning import FORECAST_LEVELS, MANY, ORACLE, POLICIES, QUANTILE, STATIC, Tuned, tune
from scaling.domain.config import HYBRID, PREDICTIVE, REACTIVE
from scaling.domain.model import Forecast
from scaling.forecast.capacity_target import LEVELS, CapacityPlan, CapacityTarget, sized
from scaling.forecast.gate import Gate, expected, gate
from scaling.forecast.walk_forward import WalkForward, walk

if TYPE_CHECKING:
    from numpy import ndarray

TRAINING = 0.6
#: The first part of the training is history only: forecasts need some before they can be tuned.
HISTORY = 0.2
#: Steps that may be violating, as a share of all.
VIOLATIONS = 0.01
BUSY_NODES, AT_QUANTILE = 20.0, 0.95
#: Steps that are run before those that count, so that a run does not begin with an empty memory.
WARM_UP = 60
#: Levels of safety tried at most when policies are brought to equal violations.
EQUALISING = 40

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Scored:
    """A policy on the part that counts."""

    tuned: Tuned
    run: Run
    """From the first counted step on"""


class Backtest:
    """One series: its demand, its forecasts, and every policy's runs over it."""

    def __init__(
        self,
        loads: Sequence[float] | ndarray,
        world: World,
        start_steps: int,
        more: Mapping[str, Mapping[int, ndarray]] | None = None,
        tell: Tell = lambda what, share: None,
    ) -> None:
        import numpy as np

        self.split = int(len(loads) * TRAINING)
        known = np.asarray(loads, dtype=float)
        top = float(np.quantile(known[: self.split], AT_QUANTILE)) or float(known[: self.split].max())
        self.scale = BUSY_NODES / top if top > 0 else 1.0
        self.loads = known * self.scale
        self.demand: list[float] = self.loads.tolist()
        self.world, self.start_steps, self._tell = world, start_steps, tell
        self._more = {name: {ahead: one * self.scale for ahead, one in by.items()} for name, by in (more or {}).items()}
        self._sized: dict[CapacityTarget, CapacityPlan] = {}

    @cached_property
    def walk(self) -> WalkForward:
        """The forecasts made at each step."""
        self._tell("forecasts", 0.35)
        quantiles = sorted({*LEVELS, QUANTILE})
        return walk(self.loads, self.world.step_s, self.start_steps, quantiles, self._more)

    @cached_property
    def gate(self) -> Gate:
        """Whether they were trusted."""
        return gate(self.loads, sized(self.walk, CapacityTarget(QUANTILE)), self.world.step_s)

    def expected(self, tuned: Tuned) -> list[Forecast | None]:
        """The forecast at each step, as `decide` takes it; the truth for the oracle."""
        if tuned.policy == ORACLE:
            return self._truth
        if tuned.aim not in self._sized:
            self._sized[tuned.aim] = sized(self.walk, tuned.aim)
        return expected(self._sized[tuned.aim], self.gate)

    @cached_property
    def _truth(self) -> list[Forecast | None]:
        lag, size = self.start_steps, len(self.demand)
        found: list[Forecast | None] = []
        for t in range(size):
            coming = self.demand[t : t + lag + 1]
            found.append(Forecast(coming[-1], max(coming), coming[-1], True, "the truth"))
        return found

    def run(self, tuned: Tuned, first: int, end: int, violations: float, cost_usd: float, keep: bool = False) -> Run:
        """Steps `first` to `end`, warmed up before; what comes back begins at `first` unless it stopped early."""
        warm = max(0, first - WARM_UP)
        expected = self.expected(tuned) if tuned.policy not in (REACTIVE, STATIC) else None
        done = replay(
            self.demand, warm, end, self.world, tuned.config(self.world.step_s),
            (lambda step: expected[step]) if expected else (lambda step: None),
            violations, cost_usd, first, keep,
        )  # fmt: skip
        for values in (done.ready, done.cost_usd, done.node_h, done.decisions):
            del values[: first - warm]
        return done

    def tuned(self) -> dict[str, Tuned]:
        """Each policy's cheapest settings with at most 1 % violations on the training part."""
        first = int(self.split * HISTORY / TRAINING)
        part, lag, step_s = slice(first, self.split), self.start_steps + 1, self.world.step_s
        limit = VIOLATIONS * (self.split - first)

        def run(one: Tuned, violations: float, cost_usd: float) -> Run:
            return self.run(one, first, self.split, violations, cost_usd)

        self._tell("settings of static", 0.1)
        nodes = shortlist.static_nodes(self.loads[part])
        found = {ORACLE: Tuned(ORACLE, 0), STATIC: tune([(Tuned(STATIC, 1), nodes)], run, limit, (1, MANY))}
        self._tell("settings of reactive", 0.15)
        found[REACTIVE] = tune(shortlist.reactive_shapes(self.loads, lag, step_s, part), run, limit)
        level = shortlist.forecast_level(self.loads, self.walk, part)
        for number, policy in enumerate((PREDICTIVE, HYBRID)):
            self._tell(f"settings of {policy}", 0.4 + 0.15 * number)
            shape = replace(found[REACTIVE], policy=policy)
            found[policy] = tune([(shape, level)], run, limit, (0, FORECAST_LEVELS - 1))
        return found

    def scored(self, tuned: Mapping[str, Tuned]) -> dict[str, tuple[Scored, Scored | None]]:
        """policy -> (with its settings as chosen, with the least safety that leaves at most 1 % violations or None)."""
        found = {}
        for number, policy in enumerate(POLICIES):
            self._tell(f"scoring {policy}", 0.7 + 0.06 * number)
            chosen = self._score(tuned[policy], float("inf"))
            assert chosen is not None
            found[policy] = chosen, self._equalised(chosen)
        return found

    @property
    def allowed(self) -> float:
        """Violating steps allowed on the scored part."""
        return VIOLATIONS * (len(self.demand) - self.split)

    def _score(self, tuned: Tuned, violations: float) -> Scored | None:
        done = self.run(tuned, self.split, len(self.demand), violations, float("inf"))
        return None if done.violating > violations else Scored(tuned, done)

    def _equalised(self, chosen: Scored) -> Scored | None:
        if chosen.tuned.policy == ORACLE:
            return chosen
        holds = chosen.run.violating <= self.allowed
        best = chosen if holds else None
        for by in range(1, EQUALISING):
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
