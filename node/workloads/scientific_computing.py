"""scientific_computing: LU solve, matrix product, Fourier transforms; a wrong result raises, never returns."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from mesh.kinds.scientific_computing import ScientificComputingPayload
from node.workload import Context

if TYPE_CHECKING:
    import numpy as np

#: HPL's threshold: a scaled residual below it is rounding, above it is an error.
RESIDUAL_LIMIT = 16.0


class WrongResult(RuntimeError):
    """The machine computed something that is not so."""


def run(payload: ScientificComputingPayload, context: Context) -> dict[str, Any]:
    """operation, n, dtype, seed, cores, seconds (of the fastest run), gflops, residual (scaled), passed.

    Raises: WrongResult when the scaled residual is not below RESIDUAL_LIMIT.
    """
    import numpy as np
    from threadpoolctl import threadpool_limits

    work = {"lu_solve": _lu_solve, "matmul": _matmul, "fft": _fft}[payload.operation]
    seconds, residual, flops = math.inf, 0.0, 0.0
    with threadpool_limits(limits=context.cores):
        for index in range(payload.repeat):
            context.progress(index / payload.repeat, f"run {index + 1} of {payload.repeat}")
            random = np.random.default_rng([payload.seed, index])
            flops, run_s, run_residual = work(payload, random, context.cores)
            check(run_residual, payload.operation)
            seconds, residual = min(seconds, run_s), max(residual, run_residual)
    result = {
        "operation": payload.operation,
        "n": payload.size,
        "dtype": payload.dtype,
        "seed": payload.seed,
        "cores": context.cores,
        "seconds": round(seconds, 6),
        "gflops": float(f"{flops / seconds / 1e9:.4g}"),
        "residual": residual,
        "passed": True,
    }
    return result | ({"batch": payload.batch} if payload.operation == "fft" else {})


def check(residual: float, operation: str) -> None:
    """Raises: WrongResult unless `residual` is a number from 0 to below RESIDUAL_LIMIT."""
    if not 0.0 <= residual < RESIDUAL_LIMIT:
        raise WrongResult(
            f"{operation} failed its check: scaled residual {residual:.3g}, the limit is {RESIDUAL_LIMIT:g}; "
            "this machine's memory, processor or libraries compute wrongly"
        )


def _norm(matrix: np.ndarray) -> float:
    """The largest row sum of absolute values, without a second matrix in memory."""
    import numpy as np

    return max(float(np.abs(rows).sum(axis=1).max()) for rows in np.array_split(matrix, len(matrix) // 256 + 1))


def _lu_solve(payload: ScientificComputingPayload, random: np.random.Generator, cores: int) -> tuple:
    import numpy as np

    n, dtype = payload.size, np.dtype(payload.dtype)
    matrix = random.random((n, n), dtype=dtype) - dtype.type(0.5)
    right = random.random(n, dtype=dtype) - dtype.type(0.5)
    started = time.perf_counter()
    solved = np.linalg.solve(matrix, right)
    run_s = time.perf_counter() - started
    return 2 / 3 * n**3 + 1.5 * n**2, run_s, lu_residual(matrix, solved, right)


def lu_residual(matrix: np.ndarray, solved: np.ndarray, right: np.ndarray) -> float:
    """HPL's scaled residual of `matrix @ solved = right`: ‖Ax−b‖ / (ε (‖A‖‖x‖ + ‖b‖) n), infinity norms."""
    import numpy as np

    error = float(np.abs(matrix @ solved - right).max())
    scale = _norm(matrix) * float(np.abs(solved).max()) + float(np.abs(right).max())
    return error / (float(np.finfo(matrix.dtype).eps) * scale * len(matrix))


def _matmul(payload: ScientificComputingPayload, random: np.random.Generator, cores: int) -> tuple:
    import numpy as np

    n, dtype = payload.size, np.dtype(payload.dtype)
    left = random.random((n, n), dtype=dtype) - dtype.type(0.5)
    right = random.random((n, n), dtype=dtype) - dtype.type(0.5)
    started = time.perf_counter()
    product = left @ right
    run_s = time.perf_counter() - started
    # Freivalds: a wrong product passes one random vector with probability 1/2 at most, eight with 1/256.
    vectors = random.integers(0, 2, (n, 8)).astype(dtype)
    return 2.0 * n**3, run_s, product_residual(left, right, product, vectors)


def product_residual(left: np.ndarray, right: np.ndarray, product: np.ndarray, vectors: np.ndarray) -> float:
    """‖Cv − A(Bv)‖ / (ε n ‖A‖ ‖B‖_max ‖v‖) over the columns of `vectors`: scaled as HPL scales its own."""
    import numpy as np

    error = float(np.abs(product @ vectors - left @ (right @ vectors)).max())
    largest = max(float(np.abs(rows).max()) for rows in np.array_split(right, len(right) // 256 + 1))
    scale = _norm(left) * largest * float(np.abs(vectors).max() or 1.0)
    return error / (float(np.finfo(product.dtype).eps) * scale * len(product))


def _fft(payload: ScientificComputingPayload, random: np.random.Generator, cores: int) -> tuple:
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    n, batch, dtype = payload.size, payload.batch, np.dtype(payload.dtype)
    signal = np.empty((batch, n), dtype=np.result_type(dtype, np.complex64))
    signal.real = random.random((batch, n), dtype=dtype) - dtype.type(0.5)
    signal.imag = random.random((batch, n), dtype=dtype) - dtype.type(0.5)
    rows = np.array_split(signal, min(cores, batch))
    with ThreadPoolExecutor(len(rows)) as pool:
        started = time.perf_counter()
        there = list(pool.map(np.fft.fft, rows))
        back = list(pool.map(np.fft.ifft, there))
        run_s = time.perf_counter() - started
    residual = max(fft_residual(*part) for part in zip(rows, there, back, strict=True))
    return 2 * batch * 5.0 * n * math.log2(n), run_s, residual


def fft_residual(signal: np.ndarray, there: np.ndarray, back: np.ndarray) -> float:
    """The larger of two errors, in units of ε log2(n): the round trip's, and that of the energy (Parseval).

    A transform that does nothing would pass the first one; it changes the energy by the factor n.
    """
    import numpy as np

    n = signal.shape[-1]
    unit = float(np.finfo(signal.dtype).eps) * max(1.0, math.log2(n))
    trip = float(np.abs(back - signal).max()) / float(np.abs(signal).max())
    energy, spectrum = (float(np.sum(np.abs(x) ** 2, dtype=np.float64)) for x in (signal, there))
    return max(trip, abs(spectrum / n / energy - 1.0)) / unit
