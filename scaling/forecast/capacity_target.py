"""How much of an uncertain load is to be held: an upper quantile of it, or whole nodes by what violations cost. Pure.

A quantile is the same certainty everywhere, whatever it costs. Where a violating step has a price in nodes, a further
node is held only where it avoids that much: quiet hours are covered nearly always, pulses of which nobody knows how
high they come less often, and a half-used node is not ordered for the sake of a digit. It is the newsvendor's choice,
in whole nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from scaling.domain.units import NODE_EPSILON

if TYPE_CHECKING:
    from numpy import ndarray

    from scaling.forecast.walk_forward import WalkForward

#: The quantiles by which a load to come is told where violations have a price.
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.965, 0.975, 0.985, 0.99, 0.995)


class CapacityTarget(NamedTuple):
    """What is held of a load to come."""

    quantile: float
    """The upper quantile; also the one by which the gate compares the forecast with reactive."""
    violation_nodes: float = 0.0
    """Nodes that a violating step is worth, for that step; 0: the quantile is held."""

    def quantiles(self) -> tuple[float, ...]:
        """Those that a walk must have for it."""
        return tuple(sorted({*(LEVELS if self.violation_nodes else ()), self.quantile}))


@dataclass(frozen=True)
class CapacityPlan:
    """What is to be held by the forecasts of a walk, a row an origin; NaN where there is none yet."""

    ahead: int
    at_start: ndarray
    until_start: ndarray
    median: ndarray
    sure: ndarray
    """How likely the load at start is to be no higher than `at_start`"""
    names: tuple[str, ...]
    in_force: ndarray
    """Number of the model in force; -1: none"""


def sized(forecasts: WalkForward, aim: CapacityTarget) -> CapacityPlan:
    """What is to be held, for each origin. Raises: ValueError (the walk has not the quantiles it takes)."""
    import numpy as np

    column = forecasts.column(aim.quantile)
    in_force = forecasts.in_force[:, column]
    if not aim.violation_nodes:
        at_start, until_start = forecasts.at_start[:, column], forecasts.until_start[:, column]
        sure = np.full(len(at_start), aim.quantile)
    else:
        told = [forecasts.column(one) for one in LEVELS]
        at_start, sure = whole_nodes(forecasts.at_start[:, told], LEVELS, aim.violation_nodes)
        until_start, _ = whole_nodes(forecasts.until_start[:, told], LEVELS, aim.violation_nodes)
    return CapacityPlan(forecasts.ahead, at_start, until_start, forecasts.median, sure, forecasts.names, in_force)


def whole_nodes(upper: ndarray, quantiles: Sequence[float], violation_nodes: float) -> tuple[ndarray, ndarray]:
    """(n): the whole nodes that cost least with the violations they leave, and how likely they are to be enough.

    `upper` (n, q): the quantiles of each load, rising; those of a row may cross a little. NaN where one is NaN.
    """
    import numpy as np

    levels = np.maximum.accumulate(upper, axis=1)
    least = np.where(np.isnan(upper).any(axis=1), -np.inf, np.inf)
    best, sure = np.full(len(levels), np.nan), np.full(len(levels), np.nan)
    # Between two quantiles the cost is a straight line, so it is least at the whole nodes next to one of them.
    for level, whole in product(levels.T, (np.floor, np.ceil)):
        nodes = whole(level + (NODE_EPSILON if whole is np.floor else -NODE_EPSILON)) + 0.0  # no -0
        enough = _chance_under(nodes, levels, quantiles)
        cost = nodes + violation_nodes * (1.0 - enough)
        better = (cost < least) & (nodes >= levels[:, 0] - NODE_EPSILON)  # below the first quantile nothing is known
        best, sure, least = (np.where(better, new, old) for new, old in ((nodes, best), (enough, sure), (cost, least)))
    return best, sure


def _chance_under(nodes: ndarray, levels: ndarray, quantiles: Sequence[float]) -> ndarray:
    """How likely each load is not above `nodes`: straight lines between the quantiles, the last one above them all."""
    import numpy as np

    rows, known = np.arange(len(nodes)), np.asarray(quantiles)
    low = np.maximum(0, (levels <= nodes[:, None] + NODE_EPSILON).sum(axis=1) - 1)
    high = np.minimum(low + 1, levels.shape[1] - 1)
    gap = levels[rows, high] - levels[rows, low]
    share = np.where(gap > 0, (nodes - levels[rows, low]) / np.where(gap > 0, gap, 1.0), 0.0)
    return known[low] + np.clip(share, 0.0, 1.0) * (known[high] - known[low])
