"""Several simple models of the future load, walked forward over a whole history. Pure.

Every model answers the same question for every origin t: knowing loads[:t] and nothing after, what is the load of step
t - 1 + ahead? So the last row is the forecast of now, and the rows before it are a back-test. NaN: not enough history
yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from scaling.domain.units import DAY_S, HOUR_S, WEEK_S

if TYPE_CHECKING:
    from numpy import ndarray

#: Seasons that are modelled, where a step is at most a quarter of one.
PERIODS_S = {"hour": HOUR_S, "day": DAY_S, "week": WEEK_S, "year": 365.25 * DAY_S}
#: How many past periods a seasonal model averages.
PAST = 4
#: How often the regression is refitted over a history; most and fewest steps of a fit.
REFITS, FIT_STEPS, FIT_LEAST = 48, 4000, 60


def periods(step_s: float, steps: int) -> dict[str, int]:
    """name -> length in steps, of the seasons that fit into `steps` at least twice."""
    found = {name: round(period_s / step_s) for name, period_s in PERIODS_S.items()}
    return {name: length for name, length in found.items() if length >= 4 and 2 * length <= steps}


def models(loads: ndarray, step_s: float) -> dict[str, Callable[[int], ndarray]]:
    """name -> model(ahead) -> forecasts of shape (n + 1,), one per origin."""
    seasons = periods(step_s, len(loads))
    found: dict[str, Callable[[int], ndarray]] = {
        "last": lambda ahead: last(loads),
        "trend": lambda ahead: trend(loads, ahead),
    }
    for name, length in seasons.items():
        found[f"seasonal-{name}"] = lambda ahead, length=length: seasonal(loads, length, ahead)
        found[f"envelope-{name}"] = lambda ahead, length=length: envelope(loads, length, ahead)
    found["regression"] = lambda ahead: regression(loads, tuple(seasons.values()), ahead)
    return found


def shifted(values: ndarray, by: int, size: int) -> ndarray:
    """values[i - by] for i in 0 … size - 1, NaN outside."""
    import numpy as np

    out = np.full(size, np.nan)
    first, end = max(0, by), min(size, len(values) + by)
    if end > first:
        out[first:end] = values[first - by : end - by]
    return out


def last(loads: ndarray) -> ndarray:
    """The load of the last step."""
    return shifted(loads, 1, len(loads) + 1)


def trend(loads: ndarray, ahead: int) -> ndarray:
    """The mean of the last three steps plus its rise over the three before, continued for three steps at most."""
    import numpy as np

    size = len(loads) + 1
    now = np.mean([shifted(loads, by, size) for by in (1, 2, 3)], axis=0)
    before = np.mean([shifted(loads, by, size) for by in (4, 5, 6)], axis=0)
    return np.maximum(0.0, now + (now - before) / 3.0 * min(ahead + 1, 3))


def past_periods(values: ndarray, length: int, ahead: int, count: int = PAST) -> list[ndarray]:
    """For each origin, the values at the target's phase in the last `count` periods that were over by then."""
    size = len(values) + 1
    first = -(-ahead // length)
    return [shifted(values, number * length - ahead + 1, size) for number in range(first, first + count)]


def seasonal(loads: ndarray, length: int, ahead: int) -> ndarray:
    """The mean of the same phase in the last periods (the seasonal naive model, its noise averaged)."""
    return mean_of(past_periods(loads, length, ahead))


def mean_of(parts: list[ndarray]) -> ndarray:
    """The mean of the known values at each origin; NaN where none is known."""
    import numpy as np

    stacked = np.array(parts)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, stacked, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def envelope(loads: ndarray, length: int, ahead: int) -> ndarray:
    """The highest of the same phase and its neighbours in the last three periods, for pulses that vary by a step."""
    import numpy as np

    size = len(loads) + 1
    first = -(-(ahead + 1) // length)
    parts = [
        shifted(loads, number * length - ahead + 1 + off, size)
        for number in range(first, first + 3)
        for off in (-1, 0, 1)
    ]
    return np.fmax.reduce(parts)


def regression(loads: ndarray, lengths: tuple[int, ...], ahead: int) -> ndarray:
    """Least squares on the last steps and the phases of past periods, refitted along the history."""
    import numpy as np

    size = len(loads) + 1
    now = [shifted(loads, by, size) for by in (1, 2, 3)]
    columns = [np.ones(size), *now, mean_of([shifted(loads, by, size) for by in range(1, 7)])]
    out = np.full(size, np.nan)
    for length in lengths:
        at_target, at_now = past_periods(loads, length, ahead), past_periods(loads, length, 0)
        columns += [at_target[0], seasonal(loads, length, ahead), at_now[1], mean_of(at_now[1:])]
    target = shifted(loads, 1 - ahead, size)
    every = max(1, size // REFITS)
    for start in range(0, size, every):
        rows = slice(start, min(size, start + every))
        usable = [column for column in columns if not np.isnan(column[max(0, start - FIT_LEAST) : rows.stop]).any()]
        first = max(0, start - FIT_STEPS)
        known = slice(first, max(first, start - ahead + 1))  # the targets of these origins lie before `start`
        if not usable:
            continue
        matrix = np.column_stack([column[known] for column in usable])
        whole = ~np.isnan(matrix).any(axis=1)
        if whole.sum() < max(FIT_LEAST, 4 * len(usable)):
            continue
        x, y = matrix[whole], target[known][whole]
        spread = np.maximum(x.std(axis=0), 1e-9)
        gram = x.T @ x + np.diag(1e-3 * len(y) * spread**2 + 1e-9)
        weights = np.linalg.solve(gram, x.T @ y)
        out[rows] = np.maximum(0.0, np.column_stack([column[rows] for column in usable]) @ weights)
    return out
