"""Prophet as one more model: fitted in a child process with a time limit, never in the daemon's process.

The child is this file run as a module: it reads requests as JSON lines, writes curves as JSON lines, and ends. When its
time is over it is killed, and the curves it has written by then are used. Where Prophet is not installed, `lacking`
says so and the other models work without it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.forecast.walk_forward import horizons

if TYPE_CHECKING:
    from numpy import ndarray

HOW_TO_INSTALL = 'pip install "queztl[forecast]"'
#: Time limit for all fits of one child, seconds.
LIMIT_S = 30.0
#: Steps a fit looks back on at most: two weeks of minutes. A back-test makes several fits, which look at fewer.
FIT_STEPS, BACKTEST_FIT_STEPS = 20160, 4032
#: Points a fit is given at most: a longer history is averaged over several steps; the curve is by the step.
POINTS_MOST = 5040
#: Fits in one back-test.
BACKTEST_FITS = 6
#: Fewest steps of a fit.
FIT_LEAST = 100


def lacking() -> str:
    """Why Prophet can't be used, and how to install it; "" when it can."""
    return "" if importlib.util.find_spec("prophet") else f"Prophet is not installed ({HOW_TO_INSTALL})"


def curves(
    parts: Sequence[tuple[Sequence[float], int]], step_s: float, limit_s: float = LIMIT_S
) -> tuple[list[list[float]], str]:
    """(for each part the expected loads of the steps after it, what went wrong or "").

    `parts`: (loads, steps to forecast). Fewer curves than parts are returned when the time is over or a fit fails.
    """
    missing = lacking()
    if missing:
        return [], missing
    requests = "\n".join(json.dumps({"loads": list(loads), "step_s": step_s, "steps": steps}) for loads, steps in parts)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "scaling.forecast.prophet"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=child_environment(),
    ) as child:  # fmt: skip
        try:
            out, errors = child.communicate(requests, timeout=limit_s)
            last = (errors.strip().splitlines() or ["no message"])[-1]
            problem = f"Prophet failed: {last}" if child.returncode else ""
        except subprocess.TimeoutExpired:
            child.kill()
            out, _ = child.communicate()
            problem = f"Prophet took longer than {limit_s:g} s and was stopped"
    found: list[list[float]] = []
    for line in (out or "").splitlines():
        try:
            found.append([float(value) for value in json.loads(line)])
        except ValueError:  # the line it was killed in
            break
    return found, problem


def child_environment() -> dict[str, str]:
    """The environment of a child that runs a module of this package."""
    # The child does not import from its working directory (-P), so it is told where this package is.
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}


def prophet_forecasts(
    loads: ndarray, step_s: float, aheads: Sequence[int], limit_s: float = LIMIT_S
) -> tuple[dict[int, ndarray], str]:
    """(steps ahead -> forecasts by origin, as `walk_forward` takes them; what went wrong or "").

    Prophet is refitted a few times along the history. Its curve is shifted by its current error, in the proportion in
    which errors have persisted so far.
    """
    import numpy as np

    size = len(loads)
    origins = [int(size * (0.25 + 0.75 * number / BACKTEST_FITS)) for number in range(BACKTEST_FITS)]
    origins = [origin for origin in origins if origin >= FIT_LEAST]
    reach = max(aheads)
    ends = [*origins[1:], size]
    parts = [
        (loads[max(0, origin - BACKTEST_FIT_STEPS) : origin].tolist(), end - origin + reach)
        for origin, end in zip(origins, ends, strict=True)
    ]
    found, problem = curves(parts, step_s, limit_s)
    out = {ahead: np.full(size + 1, np.nan) for ahead in aheads}
    for origin, end, curve in zip(origins, ends, found, strict=False):
        line = np.array(curve)  # line[i]: step origin + i
        steps = np.arange(origin + 1, end + 1)  # origins that know at least one step of the curve
        errors = loads[steps - 1] - line[steps - 1 - origin]
        for ahead in aheads:
            persistence = _persistence(errors, ahead)
            out[ahead][steps] = np.maximum(0.0, line[steps - 1 + ahead - origin] + persistence * errors)
    return out, problem


def prophet_candidates(
    loads: ndarray, step_s: float, start_steps: int, limit_s: float = LIMIT_S
) -> tuple[dict[str, dict[int, ndarray]], str]:
    """(Prophet as one more model for `walk_forward`, why it is missing or incomplete or "")."""
    problem = lacking()
    if problem:
        return {}, problem
    found, problem = prophet_forecasts(loads, step_s, horizons(start_steps), limit_s)
    return {"prophet": found}, problem


def _persistence(errors: ndarray, ahead: int) -> ndarray:
    """(n): the share of an error that persisted for `ahead` steps, as known at each step; 0 to 1."""
    import numpy as np

    products, squares = np.zeros(len(errors)), np.zeros(len(errors))
    if len(errors) > ahead:
        products[ahead:] = np.cumsum(errors[ahead:] * errors[:-ahead])
        squares[ahead:] = np.cumsum(errors[:-ahead] ** 2)
    return np.clip(products / np.maximum(squares, 1e-12), 0.0, 1.0)


def fit(loads: Sequence[float], step_s: float, steps: int) -> list[float]:
    """The expected loads of the `steps` after `loads`. Runs in the child; imports Prophet."""
    import logging

    logging.disable(logging.CRITICAL)
    import numpy as np
    import pandas as pd
    from prophet import Prophet

    loads = list(loads)[-FIT_STEPS:]
    every = pd.Timedelta(seconds=step_s)
    times = pd.Timestamp("2024-01-01") + every * np.arange(len(loads) + steps)
    span_s = len(loads) * step_s
    model = Prophet(
        uncertainty_samples=0,
        daily_seasonality=span_s >= 2 * 86400 and step_s <= 6 * 3600,
        weekly_seasonality=span_s >= 2 * 7 * 86400,
        yearly_seasonality=span_s >= 2 * 365 * 86400,
    )
    if step_s <= 900 and span_s >= 12 * 3600:
        model.add_seasonality("hourly", period=1 / 24, fourier_order=5)
    each = -(-len(loads) // POINTS_MOST)
    whole = len(loads) // each * each
    means = np.asarray(loads[len(loads) - whole :]).reshape(-1, each).mean(axis=1)
    middles = times[len(loads) - whole : len(loads) : each] + every * ((each - 1) / 2)
    model.fit(pd.DataFrame({"ds": middles, "y": means}), iter=300)
    return np.asarray(model.predict(pd.DataFrame({"ds": times[len(loads) :]}))["yhat"]).tolist()


def serve(lines: Iterator[str]) -> None:
    """Fit one request per line; write each curve as one line."""
    for line in lines:
        request: dict[str, Any] = json.loads(line)
        print(json.dumps(fit(request["loads"], request["step_s"], request["steps"])), flush=True)


if __name__ == "__main__":
    serve(sys.stdin)
