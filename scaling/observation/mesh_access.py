"""What the scaler is given of the mesh it runs in: the bus, the members, the lease and the providers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from mesh.bus.client import Bus
from mesh.kinds.base import Resources
from mesh.membership.member import Member
from scaling.providers.base import Provider


@dataclass(frozen=True)
class MeshAccess:
    """The mesh as one node's scaler reaches it."""

    bus: Bus
    me: str
    """Id of this node."""
    mesh: tuple[str, str]
    """(id, name)"""
    members: Callable[[], Sequence[Member]]
    confirm: Callable[[], Awaitable[int]]
    """Reads the lease again; returns this node's fence, 0 when it is not the leader."""
    join: Callable[[], tuple[str, ...]]
    """URLs at which a new node finds the mesh now."""
    resources: Mapping[str, Resources]
    """kind -> what one task of it takes"""
    providers: Mapping[str, Provider]
    has_key: bool = False
    """Whether the mesh has a key; without one no money is spent."""
