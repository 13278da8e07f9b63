"""How a node leaves in order: what has not started goes back, what runs may end, others are told."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec

from mesh import subjects
from mesh.errors import QueztlError
from mesh.leader import journal
from mesh.messages import encode

if TYPE_CHECKING:
    from node.daemon import Node

log = logging.getLogger(__name__)


async def drain(node: Node, drain_s: float) -> None:
    """What has not started goes back at once; what runs may end."""
    for delivery in node.deliveries:
        if not delivery.started_at:
            node.deliveries.give_back(delivery, 0.001)
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


async def say_goodbye(node: Node) -> None:
    """Hand over leadership, and tell that this node has left."""
    if not node.bus.connected:
        return
    try:
        await node.election.resign()
        left = msgspec.structs.replace(node.record, state="left")
        await node.bus.kv(subjects.KV_NODES).put(left.id, encode(left))
        node.heartbeat.state = "left"
        node.heartbeat.publish()
        await journal.emit(node.bus, "leave", {"name": node.record.name}, node.record.id, 0)
    except QueztlError as error:
        log.debug("the goodbye was not heard: %s", error)


async def close_all(node: Node) -> None:
    """Close whatever was opened, in reverse."""
    have = node.__dict__
    steps: list[Any] = []
    if "bridge" in have:
        steps.append(node.bridge.close())
    if "benchmarking" in have:
        steps.append(node.benchmarking.close())
    if "puller" in have:
        steps.append(node.puller.stop())
    if "executor" in have:
        steps.append(node.executor.stop(0.0))
    if "mesh" in have and node.mesh._waiting is not None:
        steps.append(node.mesh.close())
    if "registry" in have:
        steps.append(node.registry.close())
    if "discovery" in have:
        steps.append(node.discovery.stop())
    if "bus" in have:
        steps.append(node.bus.close())
    if "bus_host" in have:
        steps.append(node.bus_host.close())
    elif "joined" in have and node.joined.server is not None:
        steps.append(node.joined.server.stop())
    for step in steps:
        try:
            await step
        except QueztlError as error:
            log.debug("while closing: %s", error)
