"""Solves a sparse linear system, Poisson's equation on a square, with SuperLU, and checks the solution."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mesh.kinds.scientific_computing import ScientificComputingPayload

if TYPE_CHECKING:
    import numpy as np
    import scipy.sparse as sparse  # pyrefly: ignore[untyped-import]  SciPy publishes no type stubs


def solve(payload: ScientificComputingPayload, random: np.random.Generator, _: object) -> tuple[float, float, float]:
    """(floating-point operations, seconds, residual). SuperLU uses one core."""
    import numpy as np
    from scipy.sparse.linalg import splu  # pyrefly: ignore[untyped-import]  SciPy publishes no type stubs

    matrix = laplacian(payload.size).astype(payload.dtype)
    right = random.random(payload.size**2, dtype=np.dtype(payload.dtype))
    started = time.perf_counter()
    # The matrix is symmetric and positive definite: this ordering keeps the factors small, and pivoting is not needed.
    factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    solved = factors.solve(right)
    run_s = time.perf_counter() - started
    return operations(factors.L, factors.U), run_s, residual(matrix, solved, right)


def laplacian(side: int) -> sparse.csc_array:
    """The negative five-point Laplacian of `side` x `side` inner points, times the square of their distance."""
    import scipy.sparse as sparse  # pyrefly: ignore[untyped-import]  SciPy publishes no type stubs

    line = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    unit = sparse.eye_array(side)
    return (sparse.kron(line, unit) + sparse.kron(unit, line)).tocsc()


def operations(lower: sparse.csc_array, upper: sparse.csc_array) -> float:
    """The floating-point operations to compute and use the factors: a division per number below the diagonal of
    `lower`; a product and a sum for each pair of it and a number right of the diagonal in the same row of `upper`; two
    per number to solve."""
    import numpy as np

    below = np.diff(lower.tocsc().indptr).astype(float) - 1
    right_of = np.diff(upper.tocsr().indptr).astype(float) - 1
    return float((2 * below * right_of + below).sum()) + 2.0 * (lower.nnz + upper.nnz)


def residual(matrix: sparse.csc_array, solved: np.ndarray, right: np.ndarray) -> float:
    """‖Ax−b‖ / (ε (‖A‖‖x‖ + ‖b‖)), infinity norms: HPL's without the factor n, as a row has five numbers for any n."""
    import numpy as np

    error = float(np.abs(matrix @ solved - right).max())
    norm = float(abs(matrix).sum(axis=1).max())
    scale = norm * float(np.abs(solved).max()) + float(np.abs(right).max())
    return error / (float(np.finfo(matrix.dtype).eps) * scale)
