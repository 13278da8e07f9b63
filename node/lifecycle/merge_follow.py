"""This node's mesh goes into another one: finish what runs, leave, and come back there. The loop of every node.

A node that runs no bus server goes at once, one that does (or that moves the mesh) when everything is over there: until
then it takes no work and keeps the bus up. Its server then ends, and its store is put aside.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus.server.data_dir import put_aside
from mesh.coordination import MergeOrder
from mesh.discovery.identity import DataDir, MeshIdentity
from mesh.errors import QueztlError
from mesh.merge.order import read_order
from mesh.supervision import within
from node.lifecycle import draining

if TYPE_CHECKING:
    from node.daemon import Node

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
DRAIN_S = 30.0


async def follow(node: Node) -> None:
    """Watch for the order until cancelled; `node.moves_to` and `node.stop_asked` are set when it is time to go."""
    changed = asyncio.Event()

    def on_change(key: str) -> None:
        if key == subjects.MERGE_KEY:
            changed.set()

    watching = await node.bus.kv(subjects.KV_MESH).watch(on_change)
    drained = False
    try:
        while node.moves_to is None:
            order = await _read(node)
            if order is not None:
                node.bus.learn(order.urls)
                if not drained:
                    drained = True
                    await _drain(node)
                if is_time(order, node.data.node_id, node.bus_host.server is not None):
                    log.warning("this node goes into the mesh %s", order.into)
                    node.moves_to = order
                    node.stop_asked.set()
                    return
            await within(changed, LOOK_EVERY_S)
            changed.clear()
    finally:
        await watching.close()


def is_time(order: MergeOrder, me: str, hosts: bool) -> bool:
    """Whether a node may leave the mesh that goes: whoever is needed until the end stays until then. Pure."""
    return order.phase == "moved" or not (hosts or order.mover == me)


async def _read(node: Node) -> MergeOrder | None:
    try:
        return await read_order(node.bus)
    except QueztlError as error:
        log.debug("whether this mesh goes into another one could not be read: %s", error.message)
        return None


async def _drain(node: Node) -> None:
    """No new work; what runs may end. It does not say that it drains: its bus server would be taken from it."""
    node.puller.close_ingress()
    await draining.drain(node, DRAIN_S)


def adopt(data: DataDir, order: MergeOrder, name: str) -> None:
    """Belong to the other mesh from now on: where its bus is, and no bus of the old one in this node's folder.

    Called when the node has stopped. Raises: OSError.
    """
    put_aside(data.bus_folder)
    data.remember_mesh(MeshIdentity(order.into, name, 0.0, ""), order.urls)
