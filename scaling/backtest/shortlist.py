"""Which settings are worth a whole simulation: a rough, fast look at all of them. Pure.

A capacity path that a shape would have held, by arrays alone, multiplied by what leaves one violation in a hundred
steps: its mean says how dear the shape is, the factor how much safety it wants. The simulation then begins with the
best few, at that level. Nothing here is scored; a bad guess costs time.
"""

from __future__ import annotations

from math import ceil, log
from typing import TYPE_CHECKING

from scaling.backtest.tuning import BANDS, LEVELS, QUANTILES, STEP, WINDOWS_S, Tuned
from scaling.config import HYBRID, REACTIVE
from scaling.forecast.gate import VIOLATIONS, cost_and_factor, delayed_max, planned
from scaling.forecast.walk import GRAIN, Walk

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


def forecast_shapes(loads: ndarray, forecasts: Walk, part: slice, reactive: Tuned) -> list[tuple[Tuned, int]]:
    """The same for sizing by each quantile of the forecasts, falling back on `reactive` where they are not trusted."""
    import numpy as np

    found = []
    for quantile in QUANTILES:
        capacity = planned(loads, forecasts, forecasts.column(quantile))[part]
        there = ~np.isnan(capacity)
        if not there.any():
            continue
        seen = loads[part][there]
        cost, factor = cost_and_factor(seen, capacity[there], _grain(seen))
        found.append((cost, quantile, level_of(factor)))
    best = sorted(found)[:BEST] or [(0.0, QUANTILES[-1], 0)]
    return [
        (Tuned(HYBRID, reactive.level, reactive.window_s, reactive.band, quantile), level)
        for _, quantile, level in best
    ]


def level_of(factor: float) -> int:
    """The level of safety that comes nearest to a factor."""
    return min(LEVELS - 1, max(0, round(log(max(factor, 1e-9)) / log(STEP))))


def _grain(loads: ndarray) -> float:
    return GRAIN * float(loads.mean())
