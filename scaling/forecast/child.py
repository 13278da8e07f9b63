"""The forecast of now, made in a process of its own: the master's loop and heartbeats go on meanwhile.

Run as a module with a time limit in seconds: histories come in as JSON lines (`fitting.Asked`), forecasts go out as
JSON lines (`fitting.Fit`). It is the back-test's own walk and gate, of which the last row counts. Its parent ends it
when the time is over; should the parent be gone, it ends itself.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable
from math import isfinite

import msgspec

from scaling.forecast.capacity_target import CapacityTarget, sized
from scaling.forecast.fitting import Asked, Fit
from scaling.forecast.gate import expected, gate
from scaling.forecast.prophet import candidates, lacking
from scaling.forecast.walk_forward import walk

#: Behind the work of the node it runs on.
NICE = 10


def fit(asked: Asked) -> Fit:
    """One pool's forecast. Needs numpy."""
    import numpy as np

    began, steps = time.monotonic(), len(asked.loads)

    def answer(why: str, **found: object) -> Fit:
        return Fit(asked.pool, steps, time.monotonic() - began, why, **found)  # type: ignore[arg-type]

    loads = np.asarray(asked.loads)
    if not loads.any():
        return answer("its history holds no load")
    more, problem = {}, ""
    if asked.prophet_s and not lacking():
        more, problem = candidates(loads, asked.step_s, asked.start_steps, asked.prophet_s)
    aim, plain = asked.aim, CapacityTarget(asked.aim.quantile)
    low = min(aim.quantile, 1.0 - aim.quantile)
    made = walk(loads, asked.step_s, asked.start_steps, sorted({*aim.quantiles(), low}), more)
    upper = sized(made, plain)
    gated = gate(loads, upper, asked.step_s)
    now = expected(sized(made, aim), gated)[-1]
    if now is None:
        return answer(f"{steps} steps of {asked.step_s:g} s are too few for a model")
    ratio, lower = float(gated.ratio[-1]), float(made.at_start[-1, made.column(low)])
    return answer(
        "; ".join(part for part in (gated.why(steps), problem) if part),
        model=now.model, at_start=now.at_start, until_start=now.until_start, median=now.median, trusted=now.trusted,
        sure=now.sure, lower=lower if isfinite(lower) else None, upper=float(upper.at_start[-1]),
        ratio=ratio if isfinite(ratio) else None,
    )  # fmt: skip


def serve(lines: Iterable[bytes]) -> None:
    """One forecast a line, answered by one line as soon as it is made."""
    for line in lines:
        sys.stdout.buffer.write(msgspec.json.encode(fit(msgspec.json.decode(line, type=Asked))) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))  # its default is the end of the process
    os.nice(NICE)
    serve(sys.stdin.buffer)
