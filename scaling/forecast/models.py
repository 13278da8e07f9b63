"""What load is expected, by several simple models, walked forward over a whole history. Pure.

Every model answers the same question for every origin t: knowing loads[:t] and nothing after, what will the load be
`ahead` steps later, at step t - 1 + ahead? So the forecast of now is the last row of a walk, and a back-test is the
rest. NaN: not enough history yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import ndarray

HOUR_S, DAY_S, WEEK_S, YEAR_S = 3600.0, 86400.0, 7 * 86400.0, 365.25 * 86400.0
#: Periods looked for, where a step is at most a quarter of one.
PERIODS_S = {"hour": HOUR_S, "day": DAY_S, "week": WEEK_S, "year": YEAR_S}
#: How many past periods a seasonal model averages.
PAST = 4
#: The regression is fitted again this often, on at most so many steps, and not on fewer than.
REFITS, FIT_STEPS, FIT_LEAST = 48, 4000, 60


def periods(step_s: float, steps: int) -> dict[str, int]:
    """name -> length in steps, of the seasons of which `steps` hold at least two."""
    found = {name: round(period_s / step_s) for name, period_s in PERIODS_S.items()}
    return {name: length for name, length in found.items() if length >= 4 and 2 * length <= steps}


def models(loads: ndarray, step_s: float) -> dict[str, Callable[[int], ndarray]]:
    """name -> model(ahead) -> forecasts of shape (n + 1,), one an origin."""
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
    """As it was in the last step."""
    return shifted(loads, 1, len(loads) + 1)


def trend(loads: ndarray, ahead: int) -> ndarray:
    """The last three steps and their rise over the three before, damped: it goes on for three steps at most."""
    import numpy as np

    size = len(loads) + 1
    now = np.mean([shifted(loads, by, size) for by in (1, 2, 3)], axis=0)
    before = np.mean([shifted(loads, by, size) for by in (4, 5, 6)], axis=0)
    return np.maximum(0.0, now + (now - before) / 3.0 * min(ahead + 1, 3))


def past_periods(values: ndarray, length: int, ahead: int, count: int = PAST) -> list[ndarray]:
    """For each origin, the values at the target's phase in the last periods that were over by then."""
    size = len(values) + 1
    first = -(-ahead // length)
    return [shifted(values, number * length - ahead + 1, size) for number in range(first, first + count)]


def seasonal(loads: ndarray, length: int, ahead: int) -> ndarray:
    """The mean of the same phase in the last periods there are (the naive one, with its noise averaged)."""
    return mean_of(past_periods(loads, length, ahead))


def mean_of(parts: list[ndarray]) -> ndarray:
    """Their mean where any is known, else NaN."""
    import numpy as np

    stacked = np.array(parts)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    return np.where(count > 0, np.where(known, stacked, 0.0).sum(axis=0) / np.maximum(count, 1), np.nan)


def envelope(loads: ndarray, length: int, ahead: int) -> ndarray:
    """The highest of the same phase and its neighbours in the last three periods: for pulses that come a step off."""
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
    """Least squares on the last steps and the phases of past periods, fitted again on the way by what is known then."""
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
