"""What a kind of work declares: its payload, what it takes of a machine, what it needs installed.

One file a kind stands beside this one, holding nothing but its contract; the work itself is
`node/workloads/<kind>.py`, which only worker processes import. Anybody who submits needs only this folder.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Payload(BaseModel):
    """Base of all payloads: an unknown field is a fault, not something to ignore silently."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BlobInput(BaseModel):
    """A reference to an uploaded blob: what `POST /api/v1.2/blobs` returned."""

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
            raise ValueError("is no base64; upload the file as a blob, or send its bytes as base64") from None
    return value


#: The bytes of a file: MessagePack bytes, a base64 string, {"base64": "…"}, or {"blob": "b-…"}.
Data = Annotated[
    BlobInput | bytes,
    BeforeValidator(_data, json_schema_input_type=str | BlobInput),
]


@dataclass(frozen=True)
class Resources:
    """What one task of a kind takes of a machine."""

    cores: int | Literal["all"] = 1
    memory_mb: int = 512
    """Resident memory a worker may add for it; past that the task fails, the node does not."""
    gpu: int = 0


@dataclass(frozen=True)
class Need:
    """A library a kind can't run without."""

    module: str
    """Top-level import name."""
    extra: str
    """The extra of this project that installs it."""


@dataclass(frozen=True)
class KindSpec:
    """The contract of one kind."""

    name: str
    summary: str
    """One line for people."""
    payload: type[Payload]
    resources: Resources = Resources()
    needs: tuple[Need, ...] = ()
    timeout_s: float = 600.0
    """Longest run time unless the submitter says otherwise."""
    example: dict[str, Any] | None = None
    """A payload that works as it stands."""
    either: tuple[tuple[Need, ...], ...] = ()
    """Sets of libraries of which it needs one, the best first."""
    gains: tuple[Need, ...] = ()
    """Libraries it can do without, and is faster with."""
    probe: dict[str, Any] | None = None
    """A payload that always means the same work, of a tenth of a second or so: how long it takes says how fast a
    machine is. None: speed means nothing, or is not measured."""
    checkpoints: bool = False
    """Whether its work hands the mesh checkpoints (`Context.checkpoint`) and goes on from one (`Context.resume`)."""
    members_only: dict[str, str] = field(default_factory=dict)
    """Fields that are refused unless the mesh is closed (`mesh/kinds/table.py`) -> what is done for members only, as a
    phrase: "is code, which a mesh runs"."""
