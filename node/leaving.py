"""How a node leaves in order: what has not started goes back, what runs may end, others are told."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from mesh import events, subjects
from mesh.errors import QueztlError
from mesh.messages import encode

if TYPE_CHECKING:
    from node.daemon import Node

log = logging.getLogger("queztl.node")


async def drain(node: Node, drain_s: float) -> None:
    """What has not started goes back at once; what runs may end."""
    for delivery in node.deliveries:
        if not delivery.started_at:
            node.deliveries.give_back(delivery, 0.001)
            delivery.withdrawn = True
            node.executor.cancel(delivery.task.id)
    try:
        async with asyncio.timeout(drain_s):
            await node.deliveries.none_held.wait()
    except TimeoutError:
        log.warning("%d tasks did not end within %.0f s", len(node.deliveries), drain_s)
    await node.checkpoints.release_all()
    for delivery in node.deliveries:
        log.warning("task %s did not end in time; it goes back to its lane", delivery.task.id)
        node.deliveries.give_back(delivery, 0.001)
        delivery.withdrawn = True


async def say_goodbye(node: Node) -> None:
    """Hand over leadership, and tell that this node has left."""
    if not node.bus.connected:
        return
    try:
        await node.election.resign()
        left = msgspec.structs.replace(node.record, state="left")
        await node.bus.kv(subjects.KV_NODES).put(left.id, encode(left))
        node.heartbeat.state = "left"
        node.heartbeat.beat()
        await events.emit(node.bus, "leave", {"name": node.record.name}, node.record.id, 0)
    except QueztlError as error:
        log.debug("the goodbye was not heard: %s", error)
