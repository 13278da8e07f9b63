"""The policies that a back-test compares, and the search for each one's cheapest settings. Pure.

Each policy has a level of safety and, where it reacts, a shape (window, dead band). What is sized by what is seen has a
safety factor, 1.04 to the power of the level; what is sized by a forecast a price of violations, 1.15 to the power of
the level, and at the dearest one such a factor. More safety means fewer violations and more cost: from a first guess
(`shortlist.py`) the level goes up until the limit holds, or down while it does.
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
#: Levels of safety: 0 to LEVELS - 1, each STEP times the one before.
STEP, LEVELS = 1.04, 110
#: The least price of a violating step, in nodes, how much dearer it is at each level, and how many there are: to 1,339.
PRICE, PRICE_STEP, PRICES = 5.0, 1.15, 41
#: Levels of what is sized by a forecast: the prices, then room above the dearest.
FORECAST_LEVELS = PRICES + LEVELS
#: The quantile by which the gate compares forecasts with reactive.
QUANTILE = ScalingConfig.quantile
#: Scale-in windows of the reactive policy, seconds (one step at least).
WINDOWS_S = (0.0, 1800.0, 3600.0, 2 * 3600.0, 4 * 3600.0, 12 * 3600.0, 86400.0, 7 * 86400.0)
#: `cpu_down` as a share of `cpu_up`: a narrow and a wide dead band.
BANDS = (0.9, 0.6)
#: More nodes than any series needs: bounds are not what a back-test is about.
MANY = 3000


@dataclass(frozen=True)
class Tuned:
    """A policy with its settings."""

    policy: str
    level: int
    """Safety of what is sized by what is seen, for static: the number of nodes"""
    window_s: float = 0.0
    band: float = BANDS[0]
    forecast_level: int = 0
    """Safety of what is sized by a forecast"""

    @property
    def aim(self) -> CapacityTarget:
        """What is held of a forecast."""
        return CapacityTarget(QUANTILE, PRICE * PRICE_STEP ** min(self.forecast_level, PRICES - 1))

    @property
    def forecast_headroom(self) -> float:
        """Room above it."""
        return STEP ** max(0, self.forecast_level - PRICES + 1) - 1.0

    def facts(self) -> dict[str, Any]:
        """As a document tells it: what was swept, and the settings that it stands for."""
        forecaster = self.policy in (PREDICTIVE, HYBRID)
        said = {"violation_nodes": self.aim.violation_nodes, "forecast_headroom": self.forecast_headroom}
        return asdict(self) | (said if forecaster else {})

    def config(self, step_s: float) -> ScalingConfig:
        """As settings of the scaler."""
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
            quantile=self.aim.quantile,
            violation_nodes=self.aim.violation_nodes,
            forecast_headroom=self.forecast_headroom,
        )

    def safer(self, by: int) -> Tuned:
        """With so many levels of safety more, or fewer."""
        if self.policy == STATIC:
            nodes = self.level * STEP**by
            return replace(self, level=max(1, min(MANY, ceil(nodes) if by > 0 else int(nodes))))
        seen = min(LEVELS - 1, max(0, self.level + by))
        return replace(self, level=seen, forecast_level=min(FORECAST_LEVELS - 1, max(0, self.forecast_level + by)))


def _base(step_s: float, **settings: object) -> ScalingConfig:
    known = {"max_nodes": MANY, "down_votes": 1, "to_zero_after_s": 0.0, "backlog_target_s": max(300.0, step_s)}
    known |= {"max_step_up_nodes": MANY, "max_step_down_nodes": MANY, "min_life_s": min(300.0, step_s)}
    return ScalingConfig(**(known | settings))  # type: ignore[arg-type]


def at_level(shape: Tuned, level: int) -> Tuned:
    """That shape with its own knob at `level`: the forecast's safety where there is a forecast."""
    if shape.policy in (PREDICTIVE, HYBRID):
        return replace(shape, forecast_level=level)
    return replace(shape, level=level)


def tune(
    shapes: Sequence[tuple[Tuned, int]],
    run: Callable[[Tuned, float, float], Run],
    violations: float,
    levels: tuple[int, int] = (0, LEVELS - 1),
) -> Tuned:
    """The cheapest settings whose run has at most so many `violations`, each shape begun at its level.

    `run(settings, violations limit, cost limit)` may stop early past a limit. Where no setting holds the limit, the
    safest level of the first shape comes back.
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
