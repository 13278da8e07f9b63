"""Which settings are worth a whole simulation: a rough, fast look at all of them. Pure.

A capacity path that settings would have held, by arrays alone. Of a reactive shape it is multiplied by what leaves one
violation in a hundred steps: its mean says how dear the shape is, the factor how much safety it wants, and the
simulation begins with the best few, at that level. Of the forecasts the least level is looked for that leaves so many.
Nothing here is scored; a bad guess costs time.
"""

from __future__ import annotations

from math import ceil, log
from typing import TYPE_CHECKING

from scaling.backtest.tuning import BANDS, LEVELS, PRICES, STEP, WINDOWS_S, Tuned
from scaling.domain.config import HYBRID, REACTIVE
from scaling.forecast.capacity_target import sized
from scaling.forecast.gate import VIOLATIONS, cost_and_factor, delayed_max, planned
from scaling.forecast.walk_forward import GRAIN, WalkForward

if TYPE_CHECKING:
    from numpy import ndarray

#: Shapes that are simulated.
BEST = 2


def static_nodes(loads: ndarray) -> int:
    """Nodes that all but one step of a hundred need."""
    import numpy as np

    return max(1, ceil(float(np.quantile(loads, 1.0 - VIOLATIONS))))


def reactive_shapes(loads: ndarray, lag: int, step_s: float, part: slice) -> list[tuple[Tuned, int]]:
    """(shape, level to begin with), the promising ones, by the steps `part`."""
    found = []
    for window_s in WINDOWS_S:
        capacity = delayed_max(loads, lag, round(window_s / step_s))[part]
        cost, factor = cost_and_factor(loads[part], capacity, _grain(loads[part]))
        found.append((cost, window_s, level_of(factor)))
    best = sorted(found)[:BEST]
    return [(Tuned(REACTIVE, 0, window_s, band), level) for _, window_s, level in best for band in BANDS]


def forecast_level(loads: ndarray, forecasts: WalkForward, part: slice) -> int:
    """The least level at which sizing by the forecasts leaves one violation in a hundred of the steps `part`."""
    import numpy as np

    def held(level: int) -> tuple[ndarray, ndarray]:
        """(loads, whole nodes) of the steps there is a forecast for"""
        capacity = planned(loads, sized(forecasts, Tuned(HYBRID, 0, forecast_level=level).aim))[part]
        there = ~np.isnan(capacity)
        return loads[part][there], np.ceil(capacity[there])

    low, high = 0, PRICES - 1
    seen, nodes = held(high)
    if not len(seen):
        return high
    if np.mean(seen > nodes) > VIOLATIONS:
        return high + level_of(cost_and_factor(seen, nodes, _grain(seen))[1])
    while low < high:
        middle = (low + high) // 2
        seen, nodes = held(middle)
        low, high = (middle + 1, high) if np.mean(seen > nodes) > VIOLATIONS else (low, middle)
    return low


def level_of(factor: float) -> int:
    """The level of safety that comes nearest to a factor."""
    return min(LEVELS - 1, max(0, round(log(max(factor, 1e-9)) / log(STEP))))


def _grain(loads: ndarray) -> float:
    return GRAIN * float(loads.mean())
