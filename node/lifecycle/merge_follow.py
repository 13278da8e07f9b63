"""How a node follows a merge: it finishes its tasks, leaves the ending mesh and is started again in the other one.

A node without a bus server leaves at once. A node that hosts one, or that moves the streams, keeps the bus up until
everything has been moved, and takes no tasks meanwhile; then its server stops and its store is put aside. A node does
nothing for an order that the other mesh does not confirm, and stays when the order is withdrawn.
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
from mesh.merge.confirmation import confirm
from mesh.merge.order import read_order
from mesh.supervision import wait_until_set
from node.context import NodeContext
from node.lifecycle.connecting import connector

log = logging.getLogger(__name__)

READ_EVERY_S = 5.0
DRAIN_S = 30.0


class MergeFollower:
    """Watches for a merge order, on every node."""

    def __init__(
        self,
        context: NodeContext,
        *,
        drain: Callable[[float], Awaitable[None]],
        resume: Callable[[], None],
        hosts_bus: Callable[[], bool],
    ) -> None:
        """`drain(limit_s)` takes no more tasks and waits for running ones, `resume()` takes tasks again; `hosts_bus()`:
        whether it has a server."""
        self._context, self._connect = context, connector(context.config, context.node_id)
        self._drain, self._resume, self._hosts_bus = drain, resume, hosts_bus
        self._drained_for: MergeOrder | None = None
        self._doubted = ""

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
        shutdown = self._context.shutdown
        while shutdown.merge_order is None:
            try:
                order = await read_order(self._context.bus)
                if order is None:
                    self._resume_if_withdrawn()
                elif await self._may_leave(order):
                    log.warning("this mesh merges into the mesh %s; this node moves there", order.into)
                    shutdown.merge_order = order
                    shutdown.request()
                    return
            except QueztlError as error:
                log.debug("could not follow the merge order: %s", error.message)
            await wait_until_set(changed, READ_EVERY_S)
            changed.clear()

    def _resume_if_withdrawn(self) -> None:
        """There is no order: if this node followed one, it was withdrawn."""
        order, self._drained_for = self._drained_for, None
        if order is not None:
            log.warning("the order to merge into %s was withdrawn; this node takes tasks again", order.into)
            self._context.bus.forget(order.urls, order.into)
            self._resume()

    async def _may_leave(self, order: MergeOrder) -> bool:
        """Whether this node may go now. Nothing is done for an order that the other mesh does not confirm.

        Raises: QueztlError.
        """
        context = self._context
        found = await confirm(order, context.mesh.id, context.mesh.name, self._connect)
        if found.state != "confirmed":
            if found.why != self._doubted:
                log.warning("the order to merge into %s is not followed: %s", order.into, found.why)
            self._doubted = found.why
            return False
        context.bus.learn(order.urls, order.into)
        if self._drained_for is None:
            self._drained_for = order
            # The state stays "up": the leader would move the bus server off a draining node.
            await self._drain(DRAIN_S)
        hosts_bus = self._hosts_bus()
        if not may_leave(order, context.node_id, hosts_bus, found.moved):
            return False
        return not hosts_bus or await self._holds_nothing()

    async def _holds_nothing(self) -> bool:
        """Whether the queue and the delayed work of this mesh are empty, by its own bus. Raises: BusUnavailable."""
        infos = [await self._context.bus.stream_info(stream) for stream in (subjects.WORK, subjects.LATER)]
        left = sum(info.messages for info in infos)
        if left:
            log.warning("the merge is reported as done, but %d messages are still here; this node stays", left)
        return not left


def may_leave(order: MergeOrder, node: str, hosts_bus: bool, moved: bool) -> bool:
    """Whether `node` may leave the ending mesh: a bus host and the mover only when both meshes say that everything has
    been moved. `moved`: what the other mesh says. Pure."""
    return (order.phase == "moved" and moved) or not (hosts_bus or order.mover == node)


def adopt(data: DataDir, order: MergeOrder, name: str) -> None:
    """Make the data directory belong to the other mesh: remember its bus, and put the store of the old one aside.

    Called when the node has stopped. `name`: of both meshes. Raises: OSError.
    """
    put_aside(data.bus_folder)
    data.remember_mesh(MeshIdentity(order.into, name, 0.0, ""), order.urls)
