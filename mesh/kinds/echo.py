"""The contract of `echo`: returns its input, to try out and measure the mesh, and injects faults in tests."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mesh.kinds.base import Data, KindSpec, Payload, Resources

MAX_SIZE_BYTES = 1 << 30


class EchoPayload(Payload):
    """Payload of `echo`. The last four fields inject faults; only nodes with `--fault-kinds` accept them."""

    value: Any = Field(default=None, description="any value; returned unchanged")
    sleep_s: float = Field(
        default=0.0, ge=0, le=3600, allow_inf_nan=False, description="seconds to sleep before returning"
    )
    spin_ms: float = Field(
        default=0.0, ge=0, le=10_000, allow_inf_nan=False, description="milliseconds of CPU to use before returning"
    )
    data: Data | None = Field(default=None, description="bytes; the result holds their length and SHA-256")
    size_bytes: int = Field(default=0, ge=0, le=MAX_SIZE_BYTES, description="return this many bytes instead of a value")
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="seed of the bytes that size_bytes asks for")
    fail: str = Field(default="", max_length=1000, description="fault: fail with this message")
    crash: Literal["exit", "segv", "kill"] | None = Field(
        default=None, description="fault: how to end the worker process"
    )
    leak_mb: int = Field(default=0, ge=0, le=1 << 20, description="fault: memory to allocate, MiB")
    hang: bool = Field(default=False, description="fault: never return")


SPEC = KindSpec(
    name="echo",
    summary="Return a value, optionally after a delay, to try out the mesh.",
    payload=EchoPayload,
    resources=Resources(cores=1, memory_mb=512),
    timeout_s=3660.0,
    example={"value": "hello", "sleep_s": 0.1},
)
