"""How much capacity to hold for an uncertain load: an upper quantile, or whole nodes by the price of violations. Pure.

A quantile is the same certainty at every hour, whatever it costs. Where a step without enough capacity (a violation)
has a price in nodes, one more node is held only where it avoids that much. So quiet hours are covered nearly always,
pulses of unknown height less often, and a half-used node is not started for the sake of a digit. This is the newsvendor
problem, in whole nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from scaling.domain.units import NODE_EPSILON
from scaling.forecast.walk_forward import WalkForward

if TYPE_CHECKING:
    from numpy import ndarray

#: The quantiles that describe a future load where violations have a price.
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.965, 0.975, 0.985, 0.99, 0.995)


class CapacityTarget(NamedTuple):
    """What to hold for a future load."""

    quantile: float
    """The upper quantile; also the one at which the gate compares the forecast with reactive."""
    violation_nodes: float = 0.0
    """Price of a violating step, in nodes for that step; 0: the quantile is held."""

    def quantiles(self) -> tuple[float, ...]:
        """The quantiles that forecasts must have for this target, rising."""
        return tuple(sorted({*(LEVELS if self.violation_nodes else ()), self.quantile}))


@dataclass(frozen=True)
class CapacityPlan:
    """The capacity to hold by a walk-forward forecast, one row per origin; NaN where there is none yet."""

    ahead: int
    at_start: ndarray
    until_start: ndarray
    median: ndarray
    sure: ndarray
    """Probability that the load at start is not above `at_start`"""
    names: tuple[str, ...]
    in_force: ndarray
    """Number of the model in force; -1: none"""


def plan_capacity(forecasts: WalkForward, target: CapacityTarget) -> CapacityPlan:
    """The capacity to hold at each origin. Raises: ValueError (the forecasts lack a quantile of the target)."""
    import numpy as np

    column = forecasts.column(target.quantile)
    in_force = forecasts.in_force[:, column]
    if not target.violation_nodes:
        at_start, until_start = forecasts.at_start[:, column], forecasts.until_start[:, column]
        sure = np.full(len(at_start), target.quantile)
    else:
        columns = [forecasts.column(level) for level in LEVELS]
        at_start, sure = newsvendor_nodes(forecasts.at_start[:, columns], LEVELS, target.violation_nodes)
        until_start, _ = newsvendor_nodes(forecasts.until_start[:, columns], LEVELS, target.violation_nodes)
    return CapacityPlan(forecasts.ahead, at_start, until_start, forecasts.median, sure, forecasts.names, in_force)


def newsvendor_nodes(upper: ndarray, quantiles: Sequence[float], violation_nodes: float) -> tuple[ndarray, ndarray]:
    """((n): the whole nodes that cost the least together with the violations they leave, (n): P(they are enough)).

    `upper` (n, q): the quantiles of each load, rising; those of a row may cross a little. NaN where one is NaN.
    """
    import numpy as np

    levels = np.maximum.accumulate(upper, axis=1)
    least = np.where(np.isnan(upper).any(axis=1), -np.inf, np.inf)
    best, sure = np.full(len(levels), np.nan), np.full(len(levels), np.nan)
    # Between two quantiles the cost is linear, so its minimum lies at whole nodes next to one of them.
    for level, whole in product(levels.T, (np.floor, np.ceil)):
        nodes = whole(level + (NODE_EPSILON if whole is np.floor else -NODE_EPSILON)) + 0.0  # no -0
        enough = _probability_not_above(nodes, levels, quantiles)
        cost = nodes + violation_nodes * (1.0 - enough)
        better = (cost < least) & (nodes >= levels[:, 0] - NODE_EPSILON)  # below the first quantile nothing is known
        best, sure, least = (np.where(better, new, old) for new, old in ((nodes, best), (enough, sure), (cost, least)))
    return best, sure


def _probability_not_above(nodes: ndarray, levels: ndarray, quantiles: Sequence[float]) -> ndarray:
    """(n): P(load <= nodes), linear between the quantiles; above them all that of the last one."""
    import numpy as np

    rows, known = np.arange(len(nodes)), np.asarray(quantiles)
    low = np.maximum(0, (levels <= nodes[:, None] + NODE_EPSILON).sum(axis=1) - 1)
    high = np.minimum(low + 1, levels.shape[1] - 1)
    gap = levels[rows, high] - levels[rows, low]
    share = np.where(gap > 0, (nodes - levels[rows, low]) / np.where(gap > 0, gap, 1.0), 0.0)
    return known[low] + np.clip(share, 0.0, 1.0) * (known[high] - known[low])
