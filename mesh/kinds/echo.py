"""Gives back what it was given: for trying the mesh out, for measuring it, and (on order) for breaking it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mesh.kinds.base import Data, KindSpec, Payload, Resources

MAX_SIZE_BYTES = 1 << 30


class EchoPayload(Payload):
    """What `echo` takes. The last four fields break things, and only nodes with `--fault-kinds` obey them."""

    value: Any = Field(default=None, description="any value; comes back unchanged")
    sleep_s: float = Field(
        default=0.0, ge=0, le=3600, allow_inf_nan=False, description="seconds to wait before answering"
    )
    spin_ms: float = Field(
        default=0.0, ge=0, le=10_000, allow_inf_nan=False, description="milliseconds of CPU to burn before answering"
    )
    data: Data | None = Field(default=None, description="bytes; their length and SHA-256 come back")
    size_bytes: int = Field(
        default=0, ge=0, le=MAX_SIZE_BYTES, description="answer with this many bytes instead of a value"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="what the bytes of size_bytes are made from")
    fail: str = Field(default="", max_length=1000, description="fault: fail with this message")
    crash: Literal["exit", "segv", "kill"] | None = Field(
        default=None, description="fault: end the worker process in this way"
    )
    leak_mb: int = Field(default=0, ge=0, le=1 << 20, description="fault: take this much memory, in MiB")
    hang: bool = Field(default=False, description="fault: never answer")


SPEC = KindSpec(
    name="echo",
    summary="Give a value back, after a while if wanted: for trying things out.",
    payload=EchoPayload,
    resources=Resources(cores=1, memory_mb=512),
    timeout_s=3660.0,
    example={"value": "hello", "sleep_s": 0.1},
)
