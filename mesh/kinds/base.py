"""The parts of a kind's contract: payload, resources, required libraries.

Each kind has one file in this folder with its contract only; the implementation is `node/workloads/<kind>.py`, which
only worker processes import. A client that submits tasks needs only this folder.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Payload(BaseModel):
    """Base of all payloads: an unknown field is an error; it is never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BlobInput(BaseModel):
    """A reference to an uploaded blob, as `POST /api/v1.2/blobs` returns it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    blob: str = Field(pattern=r"^b-[A-Za-z0-9_-]{1,64}$", description="the blob's id")
    size: int = Field(default=0, ge=0)
    content_type: str = "application/octet-stream"


def _data(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"base64"}:
        value = value["base64"]
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is not valid base64; send the bytes as base64, or upload the file as a blob") from None
    return value


#: The bytes of a file: MessagePack bytes, a base64 string, {"base64": "…"}, or {"blob": "b-…"}.
Data = Annotated[
    BlobInput | bytes,
    BeforeValidator(_data, json_schema_input_type=str | BlobInput),
]


@dataclass(frozen=True)
class Resources:
    """The resources that one task of a kind uses."""

    cores: int | Literal["all"] = 1
    memory_mb: int = 512
    """Limit of the resident memory that a worker adds for the task, MiB; beyond it the task fails, not the node."""
    gpu: int = 0


@dataclass(frozen=True)
class Need:
    """A library that a kind requires."""

    module: str
    """Top-level import name."""
    extra: str
    """The extra of this package that installs it."""


@dataclass(frozen=True)
class KindSpec:
    """The contract of one kind."""

    name: str
    summary: str
    """A one-line description."""
    payload: type[Payload]
    resources: Resources = Resources()
    needs: tuple[Need, ...] = ()
    timeout_s: float = 600.0
    """The default run time limit."""
    example: dict[str, Any] | None = None
    """A complete payload."""
    either: tuple[tuple[Need, ...], ...] = ()
    """Alternative sets of libraries, best first; the kind requires one of them."""
    gains: tuple[Need, ...] = ()
    """Optional libraries that make the kind faster."""
    probe: dict[str, Any] | None = None
    """A payload with a constant amount of work, about a tenth of a second; its run time measures the speed of a
    machine. None: speed is meaningless for this kind, or not measured."""
    checkpoints: bool = False
    """Whether the kind saves checkpoints (`Context.checkpoint`) and resumes from them (`Context.resume`)."""
    members_only: dict[str, str] = field(default_factory=dict)
    """Fields that only a closed mesh accepts (`mesh/kinds/table.py`) -> the reason, as a phrase that follows the
    field's name: "is code, which a mesh runs"."""
