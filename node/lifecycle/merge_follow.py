"""How a node follows a merge: it finishes its tasks, leaves the ending mesh and is started again in the other one.

A node without a bus server leaves at once. A node that hosts one, or that moves the streams, keeps the bus up until
everything has been moved, and takes no tasks meanwhile; then its server stops and its store is put aside.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mesh import subjects
from mesh.bus.server.data_dir import put_aside
from mesh.coordination import MergeOrder
from mesh.discovery.identity import DataDir, MeshIdentity
from mesh.errors import QueztlError
from mesh.merge.order import read_order
from mesh.supervision import wait_until_set
from node.context import NodeContext

log = logging.getLogger(__name__)

READ_EVERY_S = 5.0
DRAIN_S = 30.0


class MergeFollower:
    """Watches for a merge order, on every node."""

    def __init__(
        self, context: NodeContext, drain: Callable[[float], Awaitable[None]], hosts_bus: Callable[[], bool]
    ) -> None:
        """`drain(limit_s)` takes no more tasks and waits for running ones; `hosts_bus()`: whether it has a server."""
        self._context, self._drain, self._hosts_bus = context, drain, hosts_bus

    async def run(self) -> None:
        """Until cancelled, or until this node must move: then `shutdown` is requested with the merge order."""
        changed = asyncio.Event()

        def on_change(key: str) -> None:
            if key == subjects.MERGE_KEY:
                changed.set()

        watch = await self._context.bus.kv(subjects.KV_MESH).watch(on_change)
        try:
            await self._follow(changed)
        finally:
            await watch.close()

    async def _follow(self, changed: asyncio.Event) -> None:
        context, shutdown = self._context, self._context.shutdown
        drained = False
        while shutdown.merge_order is None:
            order = await self._read()
            if order is not None:
                context.bus.learn(order.urls)
                if not drained:
                    drained = True
                    # The state stays "up": the leader would move the bus server off a draining node.
                    await self._drain(DRAIN_S)
                if may_leave(order, context.node_id, self._hosts_bus()):
                    log.warning("this mesh merges into the mesh %s; this node moves there", order.into)
                    shutdown.merge_order = order
                    shutdown.request()
                    return
            await wait_until_set(changed, READ_EVERY_S)
            changed.clear()

    async def _read(self) -> MergeOrder | None:
        try:
            return await read_order(self._context.bus)
        except QueztlError as error:
            log.debug("could not read the merge order: %s", error.message)
            return None


def may_leave(order: MergeOrder, node: str, hosts_bus: bool) -> bool:
    """Whether `node` may leave the ending mesh: a bus host and the mover only when everything has been moved. Pure."""
    return order.phase == "moved" or not (hosts_bus or order.mover == node)


def adopt(data: DataDir, order: MergeOrder, name: str) -> None:
    """Make the data directory belong to the other mesh: remember its bus, and put the store of the old one aside.

    Called when the node has stopped. `name`: of both meshes. Raises: OSError.
    """
    put_aside(data.bus_folder)
    data.remember_mesh(MeshIdentity(order.into, name, 0.0, ""), order.urls)
