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
    """The mesh as the scaler of one node reaches it."""

    bus: Bus
    node_id: str
    """Id of the node that runs this scaler."""
    mesh_id: str
    mesh_name: str
    members: Callable[[], Sequence[Member]]
    confirm_lease: Callable[[], Awaitable[int]]
    """Reads the lease again; returns this node's fence, 0 when it is not the leader."""
    join_urls: Callable[[], tuple[str, ...]]
    """URLs at which a new node finds the mesh now."""
    resources: Mapping[str, Resources]
    """kind -> what one task of it takes"""
    providers: Mapping[str, Provider]
    has_key: bool = False
    """Whether the mesh has a key; a mesh without one spends no money."""
