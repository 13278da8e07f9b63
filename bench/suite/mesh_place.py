"""A node of a mesh as a place to measure: repetitions are tasks for that node, one after the other.

The time is that of the work in the node's worker, by the node's own clock, so neither queues nor the network count. The
load that others cause on the machine is known only from the node's heartbeat before the benchmark.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec

from bench.harness.measure import BenchFailed
from bench.suite.conditions import BUSY_BEFORE
from bench.suite.local import TIMEOUT_S
from bench.suite.model import Conditions
from bench.suite.place import WorkFailed
from mesh import subjects
from mesh.client import Mesh
from mesh.messages import Heartbeat, NodeRecord

#: Wait until heartbeats no longer include the previous benchmark, seconds: each reports the half second before it.
SETTLE_S = 1.5
_ABSENT = ("gone", "left", "registered")


class MeshPlace:
    """One node as a `Place`."""

    def __init__(self, mesh: Mesh, node: NodeRecord) -> None:
        self._mesh, self._node = mesh, node
        self._load = 0.0

    async def lacking(self, kind: str) -> str:
        """See Place."""
        for info in self._node.capabilities.kinds:
            if info.kind == kind:
                return "" if info.available else f"{info.reason}: {info.how_to_install}"
        return f"node {self._node.id} does not know the kind {kind}"

    async def begin(self) -> None:
        """See Place."""
        heartbeats: list[Heartbeat] = []
        subscription = await self._mesh.bus.subscribe(
            subjects.heartbeat(self._node.id),
            lambda message: heartbeats.append(msgspec.msgpack.decode(message.data, type=Heartbeat)),
        )
        try:
            await asyncio.sleep(SETTLE_S)
        finally:
            await subscription.close()
        if not heartbeats:
            raise WorkFailed(f"node {self._node.id} sends no heartbeats")
        self._load = round(heartbeats[-1].cpu_percent / 100 * _cores(self._node), 2)

    async def end(self) -> Conditions:
        """See Place."""
        cores = _cores(self._node)
        busy = f"{self._load:.1f} of {cores} cores were in use before it" if self._load > BUSY_BEFORE * cores else ""
        return Conditions(load_before=self._load, busy=busy)

    async def repeat(self, kind: str, payload: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """See Place. The end record has the times of the work; a task that is cut off is not repeated elsewhere."""
        requires = {"node": self._node.id}
        handle = await self._mesh.start(kind, dict(payload), requires=requires, timeout_s=TIMEOUT_S, max_attempts=1)
        try:
            end = await handle.end()
        except asyncio.CancelledError:
            await handle.cancel()
            raise
        if end.state != "done":
            raise WorkFailed(end.error.message if end.error else f"the task ended as {end.state}")
        ran_s = end.ended_at - end.started_at
        if end.content_type:
            return dict(end.info), ran_s
        return dict(await self._mesh.value(end)), ran_s


@contextlib.asynccontextmanager
async def mesh_place(mesh: Mesh, node: NodeRecord) -> AsyncGenerator[MeshPlace]:
    """The node as a place, for one benchmark."""
    yield MeshPlace(mesh, node)


async def find(mesh: Mesh, node: str) -> NodeRecord:
    """The present node of that id or name. Raises: BenchFailed when there is none, or several have that name."""
    present = [record for record in await mesh.nodes() if record.state not in _ABSENT]
    found = [record for record in present if record.id == node] or [record for record in present if record.name == node]
    if len(found) != 1:
        known = ", ".join(f"{record.name} ({record.id})" for record in present)
        count = "several nodes are" if found else "no node is"
        raise BenchFailed(f"{count} called {node!r}; there are {known or 'none'}")
    return found[0]


def facts_of(node: NodeRecord) -> dict[str, Any]:
    """The facts of `environment.describe` for that node, from its record."""
    have = node.capabilities
    return {
        "commit": "",
        "versions": {"queztl": node.version, **have.libraries},
        "machine": {
            "name": node.name,
            "cpu": have.cpu_model,
            "cores": _cores(node),
            "memory_gib": round(have.memory_bytes / (1 << 30), 1),
            "system": f"{have.os} {have.arch}".strip(),
            "accelerators": [device.name for device in have.accelerators],
        },
    }


def _cores(node: NodeRecord) -> int:
    return node.slots or node.capabilities.cores
