"""The policies that a back-test compares, and the search for each policy's cheapest settings. Pure.

Each policy has a level of safety and, where it reacts, a shape (window, dead band). Capacity for the observed load has
a safety factor, 1.04 to the power of the level. Capacity for a forecast has a price of violations, 1.15 to the power of
the level, and beyond the highest price such a factor too. More safety means fewer violations and more cost: from a
first guess (`shortlist.py`) the level goes up until the limit holds, or down while it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, inf
from typing import Any

from scaling.backtest.simulate import Run
from scaling.domain.config import HYBRID, PREDICTIVE, REACTIVE, ScalingConfig
from scaling.forecast.capacity_target import CapacityTarget

STATIC, ORACLE = "static", "oracle"
POLICIES = (STATIC, REACTIVE, PREDICTIVE, HYBRID, ORACLE)
#: Levels of safety: 0 to LEVELS - 1, each with STEP times the capacity of the one before.
STEP, LEVELS = 1.04, 110
#: Lowest price of a violating step, in nodes; its factor per level; the number of prices, up to 1,339 nodes.
PRICE, PRICE_STEP, PRICES = 5.0, 1.15, 41
#: Levels for capacity by a forecast: the prices, then headroom above the highest price.
FORECAST_LEVELS = PRICES + LEVELS
#: The quantile at which the gate compares forecasts with reactive.
QUANTILE = ScalingConfig.quantile
#: Scale-in windows of the reactive policy, seconds (one step at least).
WINDOWS_S = (0.0, 1800.0, 3600.0, 2 * 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0, 7 * 86400.0)
#: `cpu_down` as a share of `cpu_up`: a narrow and a wide dead band.
BANDS = (0.9, 0.6)
#: More nodes than any series needs: a back-test does not test bounds.
MANY = 3000


@dataclass(frozen=True)
class Tuned:
    """A policy with its settings."""

    policy: str
    level: int
    """Safety of the capacity for the observed load; of static: the number of nodes"""
    window_s: float = 0.0
    band: float = BANDS[0]
    forecast_level: int = 0
    """Safety of the capacity for a forecast"""

    @property
    def capacity_target(self) -> CapacityTarget:
        """What to hold for a forecast load."""
        return CapacityTarget(QUANTILE, PRICE * PRICE_STEP ** min(self.forecast_level, PRICES - 1))

    @property
    def forecast_headroom(self) -> float:
        """Spare capacity above it, a share."""
        return STEP ** max(0, self.forecast_level - PRICES + 1) - 1.0

    def facts(self) -> dict[str, Any]:
        """For the document: the levels, and the settings that they stand for."""
        facts = asdict(self)
        if self.policy in (PREDICTIVE, HYBRID):
            facts["violation_nodes"] = self.capacity_target.violation_nodes
            facts["forecast_headroom"] = self.forecast_headroom
        return facts

    def config(self, step_s: float) -> ScalingConfig:
        """The settings of the scaler."""
        if self.policy == STATIC:
            return _base(step_s, mode=REACTIVE, min_nodes=self.level, max_nodes=self.level)
        if self.policy == ORACLE:
            return _base(step_s, mode=PREDICTIVE, headroom=0.0, min_life_s=0.0)
        up = STEP**-self.level
        return _base(
            step_s,
            mode=self.policy,
            headroom=STEP**self.level - 1.0,
            cpu_up=up,
            cpu_down=up * self.band,
            down_window_s=self.window_s,
            quantile=self.capacity_target.quantile,
            violation_nodes=self.capacity_target.violation_nodes,
            forecast_headroom=self.forecast_headroom,
        )

    def safer(self, by: int) -> Tuned:
        """The same with `by` levels more of safety (negative: fewer)."""
        if self.policy == STATIC:
            nodes = self.level * STEP**by
            return replace(self, level=max(1, min(MANY, ceil(nodes) if by > 0 else int(nodes))))
        level = min(LEVELS - 1, max(0, self.level + by))
        forecast_level = min(FORECAST_LEVELS - 1, max(0, self.forecast_level + by))
        return replace(self, level=level, forecast_level=forecast_level)


def _base(step_s: float, **settings: Any) -> ScalingConfig:
    base: dict[str, Any] = {
        "max_nodes": MANY, "down_votes": 1, "to_zero_after_s": 0.0, "backlog_target_s": max(300.0, step_s),
        "max_step_up_nodes": MANY, "max_step_down_nodes": MANY, "min_life_s": min(300.0, step_s),
    }  # fmt: skip
    return ScalingConfig(**(base | settings))


def at_level(shape: Tuned, level: int) -> Tuned:
    """That shape at `level`: of the forecast's safety where it uses one, else of its own."""
    if shape.policy in (PREDICTIVE, HYBRID):
        return replace(shape, forecast_level=level)
    return replace(shape, level=level)


def tune(
    shapes: Sequence[tuple[Tuned, int]],
    run: Callable[[Tuned, float, float], Run],
    violations: float,
    levels: tuple[int, int] = (0, LEVELS - 1),
) -> Tuned:
    """The cheapest settings whose run has at most `violations`. `shapes`: (shape, the level to begin at).

    `run(settings, violations limit, cost limit)` may stop early past a limit. Where no settings keep the limit, the
    result is the first shape at its safest level.
    """
    best, least = None, inf
    for shape, begin in shapes:
        level, low, high = begin, *levels
        while low <= level <= high:
            done = run(at_level(shape, level), violations, least)
            if done.violating > violations:
                low, level = level + 1, level + 1
                continue
            cost = inf if done.stopped_early else sum(done.cost_usd)
            if cost < least:
                best, least = at_level(shape, level), cost
            high, level = level - 1, level - 1
    return best or at_level(shapes[0][0], levels[1])
