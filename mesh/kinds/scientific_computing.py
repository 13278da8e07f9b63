"""Dense linear algebra and Fourier transforms whose results are checked before they are returned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from mesh.kinds.base import KindSpec, Need, Payload, Resources

#: What the arrays of one task may take together: below the kind's memory limit.
MAX_ARRAY_BYTES = 1536 << 20
DEFAULT_N = {"lu_solve": 1000, "matmul": 1000, "fft": 1 << 16}
#: Arrays of n x n (or n x batch) numbers alive at once, the solver's own copies included.
_ARRAYS = {"lu_solve": 3, "matmul": 3, "fft": 8}


class ScientificComputingPayload(Payload):
    """What `scientific_computing` takes; the numbers themselves come from the seed."""

    operation: Literal["lu_solve", "matmul", "fft"] = Field(
        default="lu_solve",
        description="lu_solve: n equations by LU with pivoting; matmul: n x n product; fft: there and back",
    )
    dtype: Literal["float64", "float32"] = Field(default="float64", description="precision")
    batch: int = Field(default=16, ge=1, le=4096, description="how many transforms (fft only)")
    n: int | None = Field(
        default=None, ge=2, le=1 << 24, validate_default=True, description="order of the matrices, or points"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="what the numbers are made from")
    repeat: int = Field(default=1, ge=1, le=100, description="runs; the fastest one counts")

    @field_validator("n")
    @classmethod
    def _fits(cls, value: int | None, info: ValidationInfo) -> int | None:
        operation, dtype = info.data.get("operation"), info.data.get("dtype")
        if value is None or operation is None or dtype is None:
            return value
        largest = largest_n(operation, dtype, info.data.get("batch", 1))
        if value > largest:
            raise ValueError(f"must be at most {largest} for {operation} in {dtype}: memory would run out")
        return value

    @property
    def size(self) -> int:
        """n, or the operation's default."""
        return self.n or DEFAULT_N[self.operation]


def largest_n(operation: str, dtype: str, batch: int) -> int:
    """The largest n whose arrays fit MAX_ARRAY_BYTES."""
    numbers = MAX_ARRAY_BYTES // (_ARRAYS[operation] * (8 if dtype == "float64" else 4))
    return numbers // batch if operation == "fft" else int(numbers**0.5)


SPEC = KindSpec(
    name="scientific_computing",
    summary="Solve linear systems, multiply matrices, transform signals; residual checked, GFLOPS told.",
    payload=ScientificComputingPayload,
    resources=Resources(cores="all", memory_mb=2048),
    needs=(Need("numpy", "science"), Need("threadpoolctl", "science")),
    timeout_s=3600.0,
    example={"operation": "lu_solve", "n": 300},
)
