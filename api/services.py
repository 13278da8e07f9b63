"""What the bridge asks of the mesh: the one seam between HTTP and everything behind it.

The bridge keeps no state of its own. Every method may raise BusUnavailable; what else it raises stands beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from mesh.benchmarks import BenchRun
from mesh.messages import BlobRef, DeadLetter, TaskEnd
from mesh.views import Accepted, NetworkView, SubmitRequest, TaskView


class CapacityServices(Protocol):
    """The scaler, as the bridge sees it: plain data in and out (the documents of api.schema_capacity)."""

    async def status(self) -> dict[str, Any]:
        """AutoscalerDoc"""

    async def forecast(self) -> dict[str, Any]:
        """ForecastsDoc"""

    async def decisions(self, limit: int) -> dict[str, Any]:
        """DecisionsDoc, of so many at most."""

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
    """The mesh, as the bridge sees it. Task ids that reach it have the shape of a task id (see api.ids)."""

    async def accept(self, request: SubmitRequest) -> Accepted:
        """Durable when it returns. Raises: UnknownKind, BadInput (every fault), Conflict, Busy, StorageFull."""

    async def status(self, task: str) -> TaskView:
        """All that is known of a task; a bare number is a sequence of the door. Raises: NotFound."""

    async def end(self, task: str) -> TaskEnd | None:
        """How a task ended; None while it has not, or never was."""

    async def wait(self, task: str, timeout_s: float) -> TaskEnd:
        """How a task ended, as soon as it has. Raises: WaitTimeout."""

    async def cancel(self, task: str) -> TaskView:
        """End a task; one that has ended stays as it is. Raises: NotFound."""

    def watch(self, task: str) -> AsyncIterator[TaskView]:
        """Its view now, then each change, until it has ended. Raises: NotFound (on the first step)."""

    async def put_blob(self, chunks: AsyncIterator[bytes], content_type: str, keep: bool) -> BlobRef:
        """Store a stream of bytes; a failed upload leaves nothing. Raises: StorageFull."""

    async def open_blob(self, blob: str) -> tuple[BlobRef, AsyncIterator[bytes]]:
        """A blob's reference and its bytes. Raises: NotFound."""

    async def network(self) -> NetworkView:
        """The whole mesh, as this node sees it now."""

    async def register(
        self, name: str, capabilities: dict[str, Any], labels: dict[str, str], node_id: str = ""
    ) -> tuple[str, tuple[str, ...]]:
        """(node id, bus URLs) for a machine that can't see the LAN; `node_id`: the one it has already, if any."""

    async def dead_list(self, kind: str = "") -> list[DeadLetter]:
        """The tasks that used up their attempts or are poison."""

    async def dead_show(self, task: str) -> DeadLetter:
        """One of them. Raises: NotFound."""

    async def dead_replay(self, task: str) -> Accepted:
        """Submit it again as a new task. Raises: NotFound, and what `accept` does."""

    async def benchmarks(self) -> dict[str, list[dict[str, Any]]]:
        """benchmark -> the latest outcome of each node, the newest first; only those that ever ran."""

    async def run_benchmarks(self, names: Sequence[str], nodes: Sequence[str] | None, quick: bool) -> BenchRun:
        """Start a run on these nodes (ids or names; None: this one; empty: all). Raises: BadInput, Conflict."""

    async def benchmark_run(self, run: str) -> BenchRun:
        """Where a run is. Raises: NotFound."""

    async def cancel_benchmarks(self, run: str) -> BenchRun:
        """Stop a run; one that has ended stays as it is. Raises: NotFound, Conflict."""

    @property
    def capacity(self) -> CapacityServices:
        """The scaler."""

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether this node can serve, and each check with "ok" or what is wrong. Never raises."""
