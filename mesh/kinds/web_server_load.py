"""The contract of `web_server_load`: HTTP load on a server of the task, or on one that the node's operator listed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from mesh import targets
from mesh.kinds.base import KindSpec, Need, Payload, Resources

MAX_CONNECTIONS = 1024
MAX_SECONDS = 600.0
MAX_RATE = 200_000.0
MAX_REQUESTS = 50_000_000
DEFAULT_SECONDS = 5.0
DEFAULT_WARM_UP_S = 0.5
_OWN_ONLY = ("route", "body_kb", "server_processes")
_TARGET_ONLY = ("path", "expect_status", "expect_sha256")


class WebServerLoadPayload(Payload):
    """Payload of `web_server_load`; an empty one loads the task's own server for five seconds."""

    mode: Literal["closed", "open"] = Field(
        default="closed",
        description="closed: each connection sends its next request after the previous response; open: requests are "
        "due at fixed times regardless of the server, and latency is measured from the due time",
    )
    rate_per_s: float | None = Field(
        default=None,
        gt=0,
        le=MAX_RATE,
        allow_inf_nan=False,
        validate_default=True,
        description="requests per second, all connections together (open mode only, where it is required)",
    )
    connections: int = Field(
        default=16, ge=1, le=MAX_CONNECTIONS, description="concurrent connections, one request at a time on each"
    )
    seconds: float = Field(
        default=DEFAULT_SECONDS, ge=0.05, le=MAX_SECONDS, allow_inf_nan=False, description="duration of the measurement"
    )
    requests: int | None = Field(
        default=None,
        ge=1,
        le=MAX_REQUESTS,
        description="end after this many requests, or after `seconds` (closed mode only)",
    )
    warm_up_s: float = Field(
        default=DEFAULT_WARM_UP_S,
        ge=0,
        le=60,
        allow_inf_nan=False,
        description="seconds of the same load before the measurement",
    )
    timeout_s: float = Field(
        default=5.0, ge=0.05, le=60, allow_inf_nan=False, description="a response that takes longer is an error"
    )
    keep_alive: bool = Field(default=True, description="false: a new connection for each request")
    method: Literal["GET", "POST"] = Field(default="GET", description="method of each request")
    body_bytes: int | None = Field(
        default=None, ge=0, le=1 << 20, description="size of the body of a POST; default 64 (POST only)"
    )
    route: Literal["plaintext", "json", "body", "cpu", "echo"] = Field(
        default="plaintext",
        description="what the task's own server returns: 'Hello, World!', a small JSON, `body_kb` of bytes, a hash "
        "that takes about 0.3 ms of CPU, or the body of a POST",
    )
    body_kb: int = Field(
        default=16, ge=1, le=1024, description="size of the response of route body, units of 1000 bytes"
    )
    server_processes: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="processes of the task's own server; default: the cores that the load generators leave",
    )
    target: str | None = Field(
        default=None,
        max_length=300,
        description="HOST:PORT to test instead of the task's own server; only on nodes whose operator listed it (give "
        "those nodes a label and require it)",
    )
    path: str = Field(default="/", max_length=2000, description="path of a request to the target")
    expect_status: int = Field(
        default=200, ge=200, le=599, description="status that the target must return; others are errors"
    )
    expect_sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 that the body of the target's responses must have; others are errors",
    )

    @field_validator("rate_per_s")
    @classmethod
    def _with_open(cls, value: float | None, info: ValidationInfo) -> float | None:
        mode = info.data.get("mode")
        if mode == "open" and value is None:
            raise ValueError("must be given in open mode")
        if mode == "closed" and value is not None:
            raise ValueError("must be left out in closed mode, where the server sets the pace")
        return value

    @field_validator("requests")
    @classmethod
    def _with_closed(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("mode") == "open":
            raise ValueError("must be left out in open mode, where rate_per_s and seconds determine the number")
        return value

    @field_validator("body_bytes")
    @classmethod
    def _with_post(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and info.data.get("method") == "GET":
            raise ValueError("must be left out with GET, which has no body")
        return value

    @field_validator("route")
    @classmethod
    def _with_method(cls, value: str, info: ValidationInfo) -> str:
        if value == "echo" and info.data.get("method") == "GET":
            raise ValueError("must not be echo with GET, which has no body")
        return value

    @field_validator("target")
    @classmethod
    def _one_spelling(cls, value: str | None) -> str | None:
        return None if value is None else targets.canonical(value)

    @field_validator("path")
    @classmethod
    def _in_one_line(cls, value: str) -> str:
        if not value.startswith("/") or not all("!" <= char <= "~" and char != "#" for char in value):
            raise ValueError("must begin with / and contain only printable ASCII, without spaces and #")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> WebServerLoadPayload:
        unused = [name for name in (_OWN_ONLY if self.target else _TARGET_ONLY) if name in self.model_fields_set]
        if unused:
            condition = "when target is given" if self.target else "unless target is given"
            raise ValueError(f"must leave out {', '.join(unused)} {condition}")
        if self.rate_per_s and self.rate_per_s * (self.seconds + self.warm_up_s) > MAX_REQUESTS:
            raise ValueError(f"must request at most {MAX_REQUESTS} requests in all: rate_per_s times seconds")
        return self

    @property
    def request_body(self) -> bytes:
        """The body of each request; empty for GET."""
        size = 64 if self.body_bytes is None else self.body_bytes
        return (b"queztl " * (size // 7 + 1))[:size] if self.method == "POST" else b""


SPEC = KindSpec(
    name="web_server_load",
    summary="HTTP load, closed loop or at a fixed rate: requests per second, latency percentiles, errors.",
    payload=WebServerLoadPayload,
    resources=Resources(cores="all", memory_mb=2048),
    needs=(Need("hdrh", "load"), Need("httptools", "load")),
    timeout_s=1200.0,
    example={"seconds": 0.3, "warm_up_s": 0.1, "connections": 4},
    probe={"requests": 6000, "warm_up_s": 0, "connections": 8, "seconds": 20},
)
