"""What the REST bridge needs of a node: the one seam between HTTP and the mesh.

The bridge keeps no state of its own. Every method may raise BusUnavailable; its docstring names what else it raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from mesh.benchmarks import BenchRun
from mesh.messages import BlobRef, DeadLetter, TaskEnd
from mesh.views import Accepted, NetworkView, SubmitRequest, TaskView


class MeshServices(Protocol):
    """Tasks, blobs and dead letters: the part of `mesh.client.Mesh` that the bridge calls.

    Task ids that reach it have the form of a task id (see api.http.ids).
    """

    async def status(self, task: str, /) -> TaskView:
        """A task's view; a bare number is the sequence of an ingress message. Raises: NotFound."""

    async def end(self, task: str, /) -> TaskEnd | None:
        """A task's result record; None while it has not ended, or when there is no such task."""

    async def wait(self, task: str, wait_s: float, /) -> TaskEnd:
        """A task's result record as soon as it exists. Raises: WaitTimeout after `wait_s` seconds."""

    async def cancel(self, task: str, /) -> TaskView:
        """Cancel a task; one that has ended stays as it is. Raises: NotFound."""

    def watch(self, task: str, /) -> AsyncIterator[TaskView]:
        """The task's view now and after each change, until it has ended. Raises: NotFound (on the first step)."""

    async def put_blob(self, source: AsyncIterator[bytes], content_type: str, keep: bool, /) -> BlobRef:
        """Store a stream of bytes; a failed upload leaves nothing. Raises: StorageFull."""

    async def open_blob(self, blob: str, /) -> tuple[BlobRef, AsyncIterator[bytes]]:
        """A blob's reference and its bytes. Raises: NotFound."""

    async def dead_list(self, kind: str = "", /) -> list[DeadLetter]:
        """The dead letters, of one kind or of all."""

    async def dead_show(self, task: str, /) -> DeadLetter:
        """The dead letter of a task. Raises: NotFound."""

    async def dead_replay(self, task: str, /) -> Accepted:
        """Submit a dead task again as a new task. Raises: NotFound, and what `Services.accept` raises."""


class BenchmarkServices(Protocol):
    """The benchmark suite on the nodes of the mesh."""

    async def latest(self) -> dict[str, list[dict[str, Any]]]:
        """benchmark -> the latest outcome of each node, the newest first; only benchmarks that have run."""

    async def start(self, names: Sequence[str], nodes: Sequence[str] | None, quick: bool) -> BenchRun:
        """Start a run on `nodes` (ids or names; None: this node; empty: all nodes). Raises: BadInput, Conflict."""

    async def status(self, run: str) -> BenchRun:
        """The progress of a run. Raises: NotFound."""

    async def cancel(self, run: str) -> BenchRun:
        """Stop a run; one that has ended stays as it is. Raises: NotFound, Conflict."""


class CapacityServices(Protocol):
    """The scaler: plain data in and out (the documents of api.documents.capacity)."""

    async def status(self) -> dict[str, Any]:
        """AutoscalerDoc"""

    async def forecast(self) -> dict[str, Any]:
        """ForecastsDoc"""

    async def decisions(self, limit: int) -> dict[str, Any]:
        """DecisionsDoc with at most `limit` decisions."""

    async def decision(self, number: int) -> dict[str, Any]:
        """DecisionReplayDoc. Raises: NotFound."""

    async def policy(self) -> dict[str, Any]:
        """PolicyHistoryDoc"""

    async def set_policy(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """PolicyBody -> WholePolicyDoc. Raises: BadInput with every fault, Conflict."""

    async def set_manual(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """ManualBody -> ManualSetDoc. Raises: BadInput with every fault."""

    async def clear_manual(self) -> dict[str, Any]:
        """ManualClearedDoc"""

    async def panic(self, on: bool) -> dict[str, Any]:
        """PanicDoc"""

    async def cost(self) -> dict[str, Any]:
        """CostDoc"""


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

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether this node can serve, and each check with "ok" or its problem. Never raises."""
