"""The process that fits forecasts, so that the leader's loop and heartbeats go on meanwhile.

Run as a module with a time limit in seconds: requests come in as JSON lines (`fitting.FitRequest`), results go out as
JSON lines (`fitting.FitResult`). A fit is the back-test's own walk-forward forecast and gate, whose last row counts.
The parent ends the process when the time is over; without a parent it ends itself.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable
from math import isfinite
from typing import TYPE_CHECKING, Any

import msgspec

from scaling.forecast.capacity_target import CapacityTarget, plan_capacity
from scaling.forecast.fitting import FitRequest, FitResult
from scaling.forecast.gate import forecasts_by_origin, gate
from scaling.forecast.prophet import lacking, prophet_candidates
from scaling.forecast.walk_forward import walk_forward

if TYPE_CHECKING:
    from numpy import ndarray


def fit(request: FitRequest) -> FitResult:
    """The forecast of one pool. Needs numpy."""
    import numpy as np

    began, steps = time.monotonic(), len(request.loads)

    def result(why: str, **forecast: Any) -> FitResult:
        return FitResult(request.pool, steps, time.monotonic() - began, why, **forecast)

    loads = np.asarray(request.loads)
    if not loads.any():
        return result("the history holds no load")
    candidates: dict[str, dict[int, ndarray]] = {}
    problem = ""
    if request.prophet_s and not lacking():
        candidates, problem = prophet_candidates(loads, request.step_s, request.start_steps, request.prophet_s)
    target, plain = request.target, CapacityTarget(request.target.quantile)
    low = min(target.quantile, 1.0 - target.quantile)
    quantiles = sorted({*target.quantiles(), low})
    forecasts = walk_forward(loads, request.step_s, request.start_steps, quantiles, candidates)
    plan = plan_capacity(forecasts, plain)
    gated = gate(loads, plan, request.step_s)
    now = forecasts_by_origin(plan_capacity(forecasts, target), gated)[-1]
    if now is None:
        return result(f"{steps} steps of {request.step_s:g} s are too few for a model")
    ratio, lower = float(gated.ratio[-1]), float(forecasts.at_start[-1, forecasts.column(low)])
    return result(
        "; ".join(part for part in (gated.why(steps), problem) if part),
        model=now.model, at_start=now.at_start, until_start=now.until_start, median=now.median, trusted=now.trusted,
        sure=now.sure, lower=lower if isfinite(lower) else None, upper=float(plan.at_start[-1]),
        ratio=ratio if isfinite(ratio) else None,
    )  # fmt: skip


def serve(lines: Iterable[bytes]) -> None:
    """Fit one request per line; write each result as one line as soon as it is made."""
    for line in lines:
        sys.stdout.buffer.write(msgspec.json.encode(fit(msgspec.json.decode(line, type=FitRequest))) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))  # SIGALRM ends the process
    serve(sys.stdin.buffer)
