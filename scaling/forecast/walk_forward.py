"""Walk-forward forecasts: models turned into upper quantiles by their past errors, the best candidate in force. Pure.

A model's past errors, relative to its own forecast or to its usual error at that phase, with a fine or a coarse floor,
give the quantiles. Of these candidates the one with the smallest recent pinball loss is in force. Everything at origin
t is made from loads[:t] alone, so the last row is the forecast of now, and the rows before it are an honest back-test.
`scaling/forecast/gate.py` decides whether it is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaling.forecast.models import mean_of, models, past_periods, periods

if TYPE_CHECKING:
    from numpy import ndarray

#: Length of the look-back on errors, seconds, and its limits in steps.
LOOK_BACK_S, LOOK_BACK_LEAST, LOOK_BACK_MOST = 14 * 86400.0, 300, 4032
#: Known outcomes without which a candidate does not count.
OUTCOMES_LEAST = 40
#: How often quantiles and the choice of the model are renewed within one look-back.
RENEWALS = 48
#: How many past periods give the usual error at a phase.
PAST_ERRORS = 4
#: Most horizons that are forecast between the next step and the one in which a new node is ready.
HORIZONS = 4
#: Floor of the scale that errors are measured by, a share of the mean load: keeps quiet nights from blowing up ratios.
ERROR_FLOOR = 0.05
#: The floors that are tried for the errors of forecasts: series that are quiet between peaks need a low one.
ERROR_FLOORS = (ERROR_FLOOR, 0.02)
#: With this many periods in the look-back, each phase may have quantiles of its own: pulses beside a quiet level.
PHASE_LEAST = 100


@dataclass(frozen=True)
class WalkForward:
    """Forecasts of one series, one row per origin t = 0 … n (which knows loads[:t]); NaN where there is none yet.

    `at_start` and `until_start` have one column per quantile of `quantiles`.
    """

    quantiles: tuple[float, ...]
    ahead: int
    """Steps from the last known load to the step in which a node started now works: step t - 1 + ahead."""
    at_start: ndarray
    until_start: ndarray
    median: ndarray
    names: tuple[str, ...]
    """The models, by number"""
    in_force: ndarray
    """Number of the model in force, one column per quantile; -1: none"""

    def column(self, quantile: float) -> int:
        """The column of this quantile. Raises: ValueError."""
        return self.quantiles.index(quantile)


def look_back(step_s: float) -> int:
    """Length of the look-back, in steps."""
    return int(min(LOOK_BACK_MOST, max(LOOK_BACK_LEAST, LOOK_BACK_S / step_s)))


def horizons(start_steps: int) -> tuple[int, ...]:
    """The horizons to forecast, in steps: from the next step to the one after a start, a few in between."""
    last = start_steps + 1
    count = min(HORIZONS, last)
    return tuple(sorted({1 + round(number * (last - 1) / max(1, count - 1)) for number in range(count)}))


def walk_forward(
    loads: Sequence[float] | ndarray,
    step_s: float,
    start_steps: int,
    quantiles: Sequence[float],
    more: Mapping[str, Mapping[int, ndarray]] | None = None,
) -> WalkForward:
    """Forecasts for every origin. `loads`: one per step of `step_s` seconds. `start_steps`: steps that a start takes.

    `more`: further models as name -> steps ahead -> forecasts, one per origin, each from the loads before it (Prophet).
    """
    import numpy as np

    known = np.asarray(loads, dtype=float)
    found, further = models(known, step_s), more or {}
    aheads = horizons(start_steps)
    back = look_back(step_s)
    season = min(periods(step_s, len(known)).values(), default=0)
    candidates: list[tuple[str, list[ndarray], ndarray]] = []
    for name in (*found, *further):
        points = [found[name](ahead) if name in found else further[name][ahead] for ahead in aheads]
        for usual, phases, floor in error_scales(season, back):
            uppers = [
                upper_quantiles(known, point, ahead, quantiles, back, usual, floor, phases)
                for point, ahead in zip(points, aheads, strict=True)
            ]
            candidates.append((name, uppers, points[-1]))
    return _best(known, candidates, aheads[-1], tuple(quantiles), back)


def error_scales(season: int, back: int) -> list[tuple[int, int, float]]:
    """The scales that errors are measured by: (period of their usual size, period of their quantiles, floor)."""
    found = [(0, 0, floor) for floor in ERROR_FLOORS]
    if season:
        found += [(season, 0, floor) for floor in ERROR_FLOORS]
        if back >= PHASE_LEAST * season:
            found.append((0, season, ERROR_FLOOR))
    return found


def upper_quantiles(
    loads: ndarray,
    point: ndarray,
    ahead: int,
    quantiles: Sequence[float],
    back: int,
    usual: int,
    floor: float,
    phases: int = 0,
) -> ndarray:
    """(n + 1, q): upper quantiles of a model's forecasts `point` (n + 1), by its errors in the `back` steps before
    each.

    `usual`: errors are measured relative to the usual error at their phase, with a period of this many steps; 0:
    relative to the forecast. `floor`: lowest scale, a share of the mean load. `phases`: each phase of this many steps
    has quantiles of its own; 0: all steps share theirs.
    """
    import numpy as np

    size = len(loads) + 1
    errors = np.full(size, np.nan)  # by origin; known at origin + ahead
    end = size - ahead
    errors[:end] = loads[ahead - 1 :] - point[:end]
    level = running_mean(loads, back)
    if usual:
        # |error| by target step, then averaged over the same phase of past periods
        by_target = np.full(len(loads), np.nan)
        by_target[ahead - 1 :] = np.abs(errors[:end])
        at_phase = mean_of(past_periods(by_target, usual, ahead, PAST_ERRORS))
        scale = np.where(np.isnan(at_phase), np.nan, at_phase) + floor * level
    else:
        scale = point + floor * level
    relative = errors / scale
    out = np.full((size, len(quantiles)), np.nan)
    every = max(1, back // RENEWALS)
    for start in range(0, size, every):
        last = max(0, start - ahead + 1)
        rows = slice(start, min(size, start + every))
        found = _quantiles(relative[max(0, last - back) : last], quantiles, phases)
        if found is not None:
            # Row i holds the quantiles of the phase i steps after the end of the errors used.
            which = (np.arange(rows.start, rows.stop) - last) % max(1, phases)
            out[rows] = point[rows, None] + found[which] * scale[rows, None]
    return np.maximum(out, 0.0)


def _quantiles(past: ndarray, quantiles: Sequence[float], phases: int) -> ndarray | None:
    """(1, q), or (phases, q) beginning with the next phase; None when too few errors are known."""
    import numpy as np

    if not phases:
        known = past[~np.isnan(past)]
        return np.quantile(known, quantiles)[None, :] if len(known) >= OUTCOMES_LEAST else None
    periods_known = len(past) // phases
    table = past[len(past) - periods_known * phases :].reshape(periods_known, phases)
    table = table[~np.isnan(table).any(axis=1)]
    return np.quantile(table, quantiles, axis=0).T if len(table) >= PHASE_LEAST else None


def running_mean(loads: ndarray, back: int) -> ndarray:
    """(n + 1): the mean of at most `back` loads before each origin."""
    import numpy as np

    sums = np.concatenate([[0.0], np.cumsum(loads)])
    index = np.arange(len(sums))
    first = np.maximum(0, index - back)
    return (sums - sums[first]) / np.maximum(1, index - first)


def pinball(actual: ndarray, forecast: ndarray, quantile: float) -> ndarray:
    """The loss of a quantile forecast: 1 - quantile per unit of load below it, quantile per unit above it."""
    import numpy as np

    over = actual - forecast
    return np.maximum(quantile * over, (quantile - 1.0) * over)


def _best(
    loads: ndarray,
    candidates: list[tuple[str, list[ndarray], ndarray]],
    ahead: int,
    quantiles: tuple[float, ...],
    back: int,
) -> WalkForward:
    """For each origin and quantile, the forecasts of the candidate with the smallest trailing loss."""
    import numpy as np

    size = len(loads) + 1
    names = tuple(dict.fromkeys(name for name, _, _ in candidates))
    at_start = np.full((size, len(quantiles)), np.nan)
    until_start, in_force = at_start.copy(), np.full((size, len(quantiles)), -1)
    median = np.full(size, np.nan)
    every = max(1, back // RENEWALS)
    renewed = (np.arange(size) // every) * every  # the origin at which the choice for this one was made
    for column, quantile in enumerate(quantiles):
        means = np.array(
            [
                trailing_mean(
                    pinball(loads[ahead - 1 :], uppers[-1][: size - ahead, column], quantile), ahead, back, size
                )
                for _, uppers, _ in candidates
            ]
        )[:, renewed]
        means = np.where(np.isnan(means), np.inf, means)
        missing = np.array([np.isnan(uppers[-1][:, column]) for _, uppers, _ in candidates])
        means = np.where(missing, np.inf, means)
        best = means.argmin(axis=0)
        none = np.isinf(means.min(axis=0))
        for number, (name, uppers, point) in enumerate(candidates):
            here = (best == number) & ~none
            at_start[here, column] = uppers[-1][here, column]
            until_start[here, column] = np.fmax.reduce([upper[here, column] for upper in uppers])
            in_force[here, column] = names.index(name)
            if column == 0:
                median[here] = point[here]
    return WalkForward(quantiles, ahead, at_start, until_start, median, names, in_force)


def trailing_mean(values: ndarray, ahead: int, back: int, size: int) -> ndarray:
    """(size): for each origin the mean of the last `back` values whose outcome is known then; NaN with too few of them.

    `values`: by origin; the one of origin t is known at t + ahead.
    """
    import numpy as np

    known = ~np.isnan(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    end = np.clip(np.arange(size) - ahead + 1, 0, len(values))
    first = np.maximum(0, end - back)
    count = counts[end] - counts[first]
    return np.where(count >= OUTCOMES_LEAST, (sums[end] - sums[first]) / np.maximum(1, count), np.nan)
