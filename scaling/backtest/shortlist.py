"""Chooses the settings that are worth a whole simulation, by a fast estimate of all of them. Pure.

The estimate is the capacity that settings would have held, from arrays alone. For a reactive shape it is scaled until
it violates in one step of a hundred: the mean is the cost of the shape, the factor its safety, and the simulation
begins with the best few at that level. For forecasts, the lowest level with so few violations is searched for. Nothing
here is scored; a bad guess only costs time.
"""

from __future__ import annotations

from math import ceil, log
from typing import TYPE_CHECKING

from scaling.backtest.tuning import BANDS, LEVELS, PRICES, STEP, WINDOWS_S, Tuned
from scaling.domain.config import HYBRID, REACTIVE
from scaling.forecast.capacity_target import plan_capacity
from scaling.forecast.gate import VIOLATIONS, cost_and_factor, delayed_max, held_capacity
from scaling.forecast.walk_forward import ERROR_FLOOR, WalkForward

if TYPE_CHECKING:
    from numpy import ndarray

#: Shapes that are simulated.
BEST = 2


def static_nodes(loads: ndarray) -> int:
    """Nodes that are enough in all but one step of a hundred."""
    import numpy as np

    return max(1, ceil(float(np.quantile(loads, 1.0 - VIOLATIONS))))


def reactive_shapes(loads: ndarray, lag: int, step_s: float, part: slice) -> list[tuple[Tuned, int]]:
    """The promising shapes, by the steps `part`: (shape, level to begin with)."""
    found: list[tuple[float, float, int]] = []
    for window_s in WINDOWS_S:
        capacity = delayed_max(loads, lag, round(window_s / step_s))[part]
        cost, factor = cost_and_factor(loads[part], capacity, _floor(loads[part]))
        found.append((cost, window_s, level_of(factor)))
    best = sorted(found)[:BEST]
    return [(Tuned(REACTIVE, 0, window_s, band), level) for _, window_s, level in best for band in BANDS]


def forecast_level(loads: ndarray, forecasts: WalkForward, part: slice) -> int:
    """The lowest level of safety at which the forecasts leave one violation in a hundred of the steps `part`."""
    import numpy as np

    def held(level: int) -> tuple[ndarray, ndarray]:
        """(loads, whole nodes held) of the steps that have a forecast"""
        target = Tuned(HYBRID, 0, forecast_level=level).capacity_target
        capacity = held_capacity(loads, plan_capacity(forecasts, target))[part]
        known = ~np.isnan(capacity)
        return loads[part][known], np.ceil(capacity[known])

    low, high = 0, PRICES - 1
    observed, nodes = held(high)
    if not len(observed):
        return high
    if np.mean(observed > nodes) > VIOLATIONS:
        return high + level_of(cost_and_factor(observed, nodes, _floor(observed))[1])
    while low < high:
        middle = (low + high) // 2
        observed, nodes = held(middle)
        low, high = (middle + 1, high) if np.mean(observed > nodes) > VIOLATIONS else (low, middle)
    return low


def level_of(factor: float) -> int:
    """The level of safety nearest to a factor."""
    return min(LEVELS - 1, max(0, round(log(max(factor, 1e-9)) / log(STEP))))


def _floor(loads: ndarray) -> float:
    return ERROR_FLOOR * float(loads.mean())
