"""The contract of `scientific_computing`: linear algebra, Fourier transforms and Monte Carlo with checked results."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from mesh.kinds.base import KindSpec, Need, Payload, Resources

#: The memory limit of all arrays of a task together, below the kind's own limit.
MAX_ARRAY_BYTES = 1536 << 20
DEFAULT_N = {
    "linpack": 2000,
    "lu_solve": 1000,
    "matmul": 1000,
    "dgemm": 2000,
    "sgemm": 2000,
    "sparse_solve": 200,
    "monte_carlo": 4_000_000,
}
#: Points per side by the number of dimensions.
DEFAULT_FFT_N = {1: 1 << 16, 2: 512, 3: 64}
#: Arrays of n x n (or n ** dimensions x batch) numbers in memory at the same time, the solver's copies included.
_ARRAYS = {"linpack": 3, "lu_solve": 3, "matmul": 3, "dgemm": 3, "sgemm": 3, "fft": 8}
#: The factors for n x n unknowns have about 35 n^2 log2(n) numbers each; n = 700 takes 1.2 GB.
_MAX_GRID = 700
_MAX_SAMPLES = 10**12
_FIXED_DTYPES = {"linpack": "float64", "dgemm": "float64", "sgemm": "float32", "monte_carlo": "float64"}


class ScientificComputingPayload(Payload):
    """Payload of `scientific_computing`; the seed generates the numbers."""

    operation: Literal["linpack", "lu_solve", "matmul", "dgemm", "sgemm", "fft", "sparse_solve", "monte_carlo"] = Field(
        default="lu_solve",
        description="linpack, lu_solve: n equations by LU with pivoting; matmul, dgemm, sgemm: n x n product; fft: "
        "transform and inverse; sparse_solve: Poisson's equation on n x n points; monte_carlo: price of an option from "
        "n paths",
    )
    dtype: Literal["float64", "float32"] | None = Field(
        default=None,
        validate_default=True,
        description="precision; float64 by default, always for linpack, monte_carlo and dgemm; float32 for sgemm",
    )
    device: Literal["cpu", "gpu"] = Field(
        default="cpu",
        description="device of the dense operations and fft; gpu requires PyTorch on the node, so require an "
        "accelerator as well",
    )
    dimensions: int = Field(default=1, ge=1, le=3, description="dimensions of the transform, n points each (fft only)")
    batch: int | None = Field(
        default=None, ge=1, le=4096, description="number of transforms (fft only); default 16 in one dimension, else 1"
    )
    n: int | None = Field(
        default=None,
        ge=2,
        le=_MAX_SAMPLES,
        validate_default=True,
        description="order of the matrices, points per side, or number of paths",
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="random seed of the numbers")
    repeat: int = Field(default=1, ge=1, le=100, description="number of runs; the result reports the fastest")

    @field_validator("dtype")
    @classmethod
    def _as_named(cls, value: str | None, info: ValidationInfo) -> str | None:
        operation = info.data.get("operation", "")
        fixed = _FIXED_DTYPES.get(operation)
        if fixed and value not in (None, fixed):
            raise ValueError(f"must be {fixed} for {operation}")
        return fixed or value or "float64"

    @field_validator("device")
    @classmethod
    def _dense(cls, value: str, info: ValidationInfo) -> str:
        if value == "gpu" and info.data.get("operation") in ("sparse_solve", "monte_carlo"):
            raise ValueError(f"must be cpu for {info.data['operation']}")
        return value

    @field_validator("n")
    @classmethod
    def _fits(cls, value: int | None, info: ValidationInfo) -> int | None:
        operation, dtype = info.data.get("operation"), info.data.get("dtype")
        dimensions, batch = info.data.get("dimensions", 1), info.data.get("batch")
        if operation is None or dtype is None:
            return value
        largest = largest_n(operation, dtype, batch or default_batch(dimensions), dimensions)
        n = value or (DEFAULT_FFT_N[dimensions] if operation == "fft" else DEFAULT_N[operation])
        if n > largest:
            raise ValueError(f"must be at most {largest} for {operation} in {dtype}: memory would run out")
        return value

    @property
    def size(self) -> int:
        """`n` or the operation's default."""
        return self.n or (DEFAULT_FFT_N[self.dimensions] if self.operation == "fft" else DEFAULT_N[self.operation])

    @property
    def transforms(self) -> int:
        """`batch` or its default."""
        return self.batch or default_batch(self.dimensions)


def default_batch(dimensions: int) -> int:
    """The default number of transforms."""
    return 16 if dimensions == 1 else 1


def largest_n(operation: str, dtype: str, batch: int, dimensions: int = 1) -> int:
    """The largest n whose arrays fit into MAX_ARRAY_BYTES."""
    if operation == "monte_carlo":
        return _MAX_SAMPLES
    if operation == "sparse_solve":
        return _MAX_GRID
    numbers = MAX_ARRAY_BYTES // (_ARRAYS[operation] * (8 if dtype == "float64" else 4))
    power, count = (dimensions, numbers // batch) if operation == "fft" else (2, numbers)
    root = round(count ** (1 / power))
    return root if root**power <= count else root - 1


SPEC = KindSpec(
    name="scientific_computing",
    summary="LINPACK, matrix products, Fourier transforms, sparse solve, Monte Carlo: checked, with GFLOPS.",
    payload=ScientificComputingPayload,
    resources=Resources(cores="all", memory_mb=2048),
    needs=(Need("numpy", "science"), Need("scipy", "science"), Need("threadpoolctl", "science")),
    timeout_s=3600.0,
    example={"operation": "lu_solve", "n": 300},
    probe={"operation": "linpack", "n": 1500},
)
