"""The documents of the mesh and of its kinds of work. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, UnsetType, field

from api.documents.base import Document
from api.documents.errors import ErrorBody
from mesh.kinds.base import Resources
from mesh.views import BusView


class RegisteredDoc(Document, frozen=True):
    """The identity of a machine that registered, and where the bus is."""

    id: str
    """its node id"""
    bus: BusView


class KindNode(Document, frozen=True):
    """Whether a node can run a kind; if not, why, and the command that adds it."""

    id: str
    name: str
    available: bool
    reason: str
    how_to_install: str


class KindDoc(Document, frozen=True):
    """A kind of work."""

    kind: str
    summary: str
    payload_schema: dict[str, Any] = field(name="schema")
    """JSON schema of its payload"""
    example: dict[str, Any] | None
    """a payload that works"""
    resources: Resources
    timeout_s: float
    """longest run time, unless the task sets another"""
    nodes: list[KindNode]
    """the nodes of the mesh that know the kind"""


class KindsDoc(Document, frozen=True):
    """The kinds of work."""

    workloads: list[KindDoc]


class HealthDoc(Document, frozen=True):
    """The process answers."""

    status: str


class ReadyDoc(Document, frozen=True):
    """Whether work can be submitted at this node."""

    ready: bool
    checks: dict[str, str]
    """check -> "ok", or what is wrong"""
    error: ErrorBody | UnsetType = UNSET
    """present when the node is not ready"""
