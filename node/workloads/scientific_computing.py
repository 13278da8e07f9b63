"""scientific_computing: LU solve, products, transforms, Monte Carlo; every result is checked, a wrong one raises."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from mesh.kinds.scientific_computing import ScientificComputingPayload
from node.executor.context import Context
from node.workloads.common.progress_ticker import ticking
from node.workloads.science import dense_gpu, monte_carlo, sparse

if TYPE_CHECKING:
    import numpy as np

#: HPL's threshold: a scaled residual below it is due to rounding, one above it is an error.
RESIDUAL_LIMIT = 16.0
#: Dense operations with fewer floating-point operations than this are not estimated.
_WORTH_ESTIMATING = 20e9


class WrongResult(RuntimeError):
    """The machine computed a wrong result."""


def run(payload: ScientificComputingPayload, context: Context) -> dict[str, Any]:
    """Run the operation, and return operation, n, dtype, seed, cores, device, seconds (of the fastest run), gflops,
    residual (scaled) and passed.

    fft adds batch and dimensions; monte_carlo returns samples_per_s, estimate, exact, standard_error and off_by (in
    standard errors) instead of gflops and residual.

    Raises: WrongResult when the scaled residual is not below RESIDUAL_LIMIT, or the estimate is too far off.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    if payload.operation == "monte_carlo":
        return _monte_carlo(payload, context)
    operation = _ALIASES.get(payload.operation, payload.operation)
    work = {"lu_solve": _lu_solve, "matmul": _matmul, "fft": _fft, "sparse_solve": sparse.solve}[operation]
    seconds, residual, flops = math.inf, 0.0, 0.0
    with threadpool_limits(limits=context.cores):
        engine = Processor(context.cores) if payload.device == "cpu" else dense_gpu.gpu(str(payload.dtype))
        expected_s = _expected_s(payload, operation) if payload.device == "cpu" else 0.0
        for index in range(payload.repeat):
            share = (index / payload.repeat, (index + 1) / payload.repeat)
            with ticking(context, f"run {index + 1} of {payload.repeat}", *share, expected_s):
                random = np.random.default_rng([payload.seed, index])
                flops, run_s, run_residual = work(payload, random, engine)
                check(run_residual, payload.operation)
            seconds, residual = min(seconds, run_s), max(residual, run_residual)
            expected_s = run_s
    result = _described(payload, context, seconds) | {"device": engine.name}
    result |= {"gflops": float(f"{flops / seconds / 1e9:.4g}"), "residual": residual, "passed": True}
    more = {"batch": payload.transforms, "dimensions": payload.dimensions}
    return result | (more if payload.operation == "fft" else {})


_ALIASES = {"linpack": "lu_solve", "dgemm": "matmul", "sgemm": "matmul"}


def _described(payload: ScientificComputingPayload, context: Context, seconds: float) -> dict[str, Any]:
    return {
        "operation": payload.operation,
        "n": payload.size,
        "dtype": payload.dtype,
        "seed": payload.seed,
        "cores": context.cores,
        "seconds": round(seconds, 6),
    }


def _expected_s(payload: ScientificComputingPayload, operation: str) -> float:
    """Estimated seconds of a large dense run, extrapolated from a small product; 0 for a short one, or if unknown."""
    import numpy as np

    flops = {"lu_solve": 2 / 3, "matmul": 2.0}.get(operation, 0.0) * float(payload.size) ** 3
    if flops < _WORTH_ESTIMATING:
        return 0.0
    small = np.ones((800, 800), dtype=payload.dtype)
    started = time.perf_counter()
    _ = small @ small
    return flops / (2 * 800**3) * (time.perf_counter() - started)


def _monte_carlo(payload: ScientificComputingPayload, context: Context) -> dict[str, Any]:
    import numpy as np

    best_s, estimate, error, off_by = math.inf, 0.0, 0.0, 0.0
    for index in range(payload.repeat):

        def report(share: float, run_index: int = index) -> None:
            context.progress((run_index + share) / payload.repeat, f"run {run_index + 1} of {payload.repeat}")

        seeds = np.random.SeedSequence([payload.seed, index])
        run_s, estimate, error = monte_carlo.price(payload, seeds, context.cores, report)
        off_by = monte_carlo.off_by(estimate, error)
        if not off_by < monte_carlo.LIMIT:
            raise WrongResult(
                f"monte_carlo failed its check: {estimate:.6g} is {off_by:.3g} standard errors from "
                f"{monte_carlo.exact():.6g}; this machine's processor or libraries make computing errors"
            )
        best_s = min(best_s, run_s)
    return _described(payload, context, best_s) | {
        "device": "cpu",
        "samples_per_s": float(f"{payload.size / best_s:.4g}"),
        "estimate": estimate,
        "exact": monte_carlo.exact(),
        "standard_error": error,
        "off_by": round(off_by, 3),
        "passed": True,
    }


class Processor:
    """The dense operations in NumPy and SciPy: (results, seconds). `dense_gpu.Torch` is its counterpart on a GPU."""

    name = "cpu"

    def __init__(self, cores: int) -> None:
        self._cores = cores

    def solve(self, matrix: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
        """Solve `matrix @ x = right` by LU with partial pivoting: (x, seconds)."""
        import numpy as np

        started = time.perf_counter()
        solved = np.linalg.solve(matrix, right)
        return solved, time.perf_counter() - started

    def product(self, left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, float]:
        """(`left @ right`, seconds)."""
        started = time.perf_counter()
        product = left @ right
        return product, time.perf_counter() - started

    def round_trip(self, signal: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, float]:
        """(the transform of `signal` over `axes`, the inverse of that, seconds)."""
        from scipy import fft  # pyrefly: ignore[untyped-import]  SciPy publishes no type stubs

        started = time.perf_counter()
        there = fft.fftn(signal, axes=axes, workers=self._cores)
        back = fft.ifftn(there, axes=axes, workers=self._cores)
        return there, back, time.perf_counter() - started


Engine = Processor | dense_gpu.Torch
Work = tuple[float, float, float]
"""(floating-point operations, seconds, scaled residual) of one run"""


def check(residual: float, operation: str) -> None:
    """Raises: WrongResult unless 0 <= `residual` < RESIDUAL_LIMIT."""
    if not 0.0 <= residual < RESIDUAL_LIMIT:
        raise WrongResult(
            f"{operation} failed its check: scaled residual {residual:.3g}, the limit is {RESIDUAL_LIMIT:g}; "
            "this machine's memory, processor or libraries make computing errors"
        )


def _norm(matrix: np.ndarray) -> float:
    """The infinity norm (largest row sum of absolute values), without a second matrix in memory."""
    import numpy as np

    return max(float(np.abs(rows).sum(axis=1).max()) for rows in np.array_split(matrix, len(matrix) // 256 + 1))


def _lu_solve(payload: ScientificComputingPayload, random: np.random.Generator, engine: Engine) -> Work:
    import numpy as np

    n, dtype = payload.size, np.dtype(payload.dtype)
    matrix = random.random((n, n), dtype=dtype) - dtype.type(0.5)
    right = random.random(n, dtype=dtype) - dtype.type(0.5)
    solved, run_s = engine.solve(matrix, right)
    return 2 / 3 * n**3 + 1.5 * n**2, run_s, lu_residual(matrix, solved, right)


def lu_residual(matrix: np.ndarray, solved: np.ndarray, right: np.ndarray) -> float:
    """HPL's scaled residual of `matrix @ solved = right`: ‖Ax−b‖ / (ε (‖A‖‖x‖ + ‖b‖) n), infinity norms."""
    import numpy as np

    error = float(np.abs(matrix @ solved - right).max())
    scale = _norm(matrix) * float(np.abs(solved).max()) + float(np.abs(right).max())
    return error / (float(np.finfo(matrix.dtype).eps) * scale * len(matrix))


def _matmul(payload: ScientificComputingPayload, random: np.random.Generator, engine: Engine) -> Work:
    import numpy as np

    n, dtype = payload.size, np.dtype(payload.dtype)
    left = random.random((n, n), dtype=dtype) - dtype.type(0.5)
    right = random.random((n, n), dtype=dtype) - dtype.type(0.5)
    product, run_s = engine.product(left, right)
    # Freivalds' check: a wrong product passes one random vector with probability at most 1/2, eight with 1/256.
    vectors = random.integers(0, 2, (n, 8)).astype(dtype)
    return 2.0 * n**3, run_s, product_residual(left, right, product, vectors)


def product_residual(left: np.ndarray, right: np.ndarray, product: np.ndarray, vectors: np.ndarray) -> float:
    """‖Cv − A(Bv)‖ / (ε n ‖A‖ ‖B‖_max ‖v‖) over the columns of `vectors`, scaled as HPL scales its residual."""
    import numpy as np

    error = float(np.abs(product @ vectors - left @ (right @ vectors)).max())
    largest = max(float(np.abs(rows).max()) for rows in np.array_split(right, len(right) // 256 + 1))
    scale = _norm(left) * largest * float(np.abs(vectors).max() or 1.0)
    return error / (float(np.finfo(product.dtype).eps) * scale * len(product))


def _fft(payload: ScientificComputingPayload, random: np.random.Generator, engine: Engine) -> Work:
    import numpy as np

    dtype = np.dtype(payload.dtype)
    shape = (payload.transforms, *[payload.size] * payload.dimensions)
    signal = np.empty(shape, dtype=np.result_type(dtype, np.complex64))
    signal.real = random.random(shape, dtype=dtype) - dtype.type(0.5)
    signal.imag = random.random(shape, dtype=dtype) - dtype.type(0.5)
    there, back, run_s = engine.round_trip(signal, tuple(range(1, len(shape))))
    points = payload.size**payload.dimensions
    flops = 2 * payload.transforms * 5.0 * points * math.log2(points)
    return flops, run_s, fft_residual(signal, there, back)


def fft_residual(signal: np.ndarray, there: np.ndarray, back: np.ndarray) -> float:
    """The larger of the round-trip error and the energy error (Parseval), in units of ε log2(n).

    n is the number of points of one transform; the first axis is the index of the transform. A transform that does
    nothing passes the round trip, but its energy is off by the factor n; one that leaves out an axis by its length.
    """
    import numpy as np

    n = math.prod(signal.shape[1:])
    unit = float(np.finfo(signal.dtype).eps) * max(1.0, math.log2(n))
    trip = float(np.abs(back - signal).max()) / float(np.abs(signal).max())
    energy, spectrum = (float(np.sum(np.abs(x) ** 2, dtype=np.float64)) for x in (signal, there))
    return max(trip, abs(spectrum / n / energy - 1.0)) / unit
