"""What the REST bridge needs of its node: the one seam between HTTP and everything behind it.

The bridge keeps no state of its own. Every method may raise BusUnavailable; its docstring names what else it raises.
"""

from __future__ import annotations

from typing import Any, Protocol

from api.services.benchmarks import BenchmarkServices
from api.services.capacity import CapacityServices
from api.services.mesh import MeshServices
from mesh.errors import QueztlError
from mesh.views import Accepted, NetworkView, SubmitRequest


class Services(Protocol):
    """One node, as its REST bridge sees it. The properties raise BusUnavailable while the node joins its mesh."""

    @property
    def mesh(self) -> MeshServices:
        """Tasks, blobs and dead letters."""

    @property
    def benchmarks(self) -> BenchmarkServices:
        """The benchmark suite."""

    @property
    def capacity(self) -> CapacityServices:
        """The scaler."""

    async def accept(self, request: SubmitRequest) -> Accepted:
        """Store a task durably. Raises: UnknownKind, BadInput (every fault), Conflict, Busy, StorageFull."""

    async def network(self) -> NetworkView:
        """The whole mesh, as this node sees it now."""

    async def register(
        self, name: str, capabilities: dict[str, Any], labels: dict[str, str], node_id: str = ""
    ) -> tuple[str, tuple[str, ...]]:
        """Record a machine that can't see the LAN: (node id, bus URLs). `node_id`: the one it already has."""

    def explained(self, error: QueztlError) -> QueztlError:
        """`error`, or one that says more: while most bus servers are away, why nothing can be stored. Never raises."""

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether this node can serve, and each check with "ok" or its problem. Never raises."""
