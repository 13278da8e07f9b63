"""What the bridge asks of the benchmark suite. Every method may raise BusUnavailable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mesh.benchmarks import BenchRun


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
