"""Monte Carlo with a known result: the price of a European call from random paths and by the Black-Scholes formula."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist
from typing import TYPE_CHECKING

from mesh.kinds.scientific_computing import ScientificComputingPayload

if TYPE_CHECKING:
    import numpy as np

#: The option: current price of the share, strike price, years to maturity, annual interest, annual volatility.
SHARE, STRIKE, YEARS, RATE, VOLATILITY = 100.0, 105.0, 1.0, 0.03, 0.2
#: The largest accepted error in standard errors: a larger one occurs by chance once in 500 million runs.
LIMIT = 6.0
#: Paths per piece of a thread: 8 MB, and some tens of milliseconds.
PIECE = 1 << 20


def exact() -> float:
    """The Black-Scholes price of the call."""
    spread = VOLATILITY * math.sqrt(YEARS)
    high = (math.log(SHARE / STRIKE) + (RATE + VOLATILITY**2 / 2) * YEARS) / spread
    normal = NormalDist()
    return SHARE * normal.cdf(high) - STRIKE * math.exp(-RATE * YEARS) * normal.cdf(high - spread)


def price(
    payload: ScientificComputingPayload, seeds: np.random.SeedSequence, cores: int, report: Callable[[float], None]
) -> tuple[float, float, float]:
    """(seconds, estimate, standard error). The estimate is the same on any number of cores: every piece has its own
    random stream. `report(share)` is called after every 64 pieces."""
    counts = [min(PIECE, payload.size - start) for start in range(0, payload.size, PIECE)]
    total = squares = 0.0
    started = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        for begin in range(0, len(counts), 64):
            group = counts[begin : begin + 64]
            for piece_sum, piece_squares in pool.map(_piece, seeds.spawn(len(group)), group):
                total, squares = total + piece_sum, squares + piece_squares
            report(min(1.0, (begin + 64) / len(counts)))
    seconds = time.perf_counter() - started
    mean = total / payload.size
    variance = max(0.0, squares / payload.size - mean**2)
    return seconds, mean, math.sqrt(variance / payload.size)


def _piece(seed: np.random.SeedSequence, count: int) -> tuple[float, float]:
    """The sum and the sum of squares of `count` discounted payoffs."""
    import numpy as np

    paths = np.random.Generator(np.random.SFC64(seed)).standard_normal(count)
    paths *= VOLATILITY * math.sqrt(YEARS)
    paths += (RATE - VOLATILITY**2 / 2) * YEARS
    np.exp(paths, out=paths)
    paths *= SHARE
    paths -= STRIKE
    np.maximum(paths, 0.0, out=paths)
    paths *= math.exp(-RATE * YEARS)
    return float(paths.sum()), float(paths @ paths)


def off_by(estimate: float, standard_error: float) -> float:
    """The error of an estimate in standard errors; infinite when the standard error is not a number above 0."""
    return abs(estimate - exact()) / standard_error if standard_error > 0 else math.inf
