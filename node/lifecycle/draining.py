"""How a node leaves: it returns what has not started, lets running tasks end, and announces that it left."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from mesh import subjects
from mesh.errors import QueztlError
from mesh.leader import journal
from mesh.leader.election import Election
from mesh.messages import encode
from node.context import NodeContext
from node.executor.executor import Executor
from node.heartbeat import HeartbeatPublisher
from node.work.checkpoints import Checkpoints
from node.work.deliveries import Deliveries

log = logging.getLogger(__name__)
#: The server redelivers a returned message after this, seconds: at once, but never with a bare NAK.
RETURN_DELAY_S = 0.001


async def drain(deliveries: Deliveries, executor: Executor, checkpoints: Checkpoints, drain_s: float) -> None:
    """Return unstarted tasks to their lanes at once, and running ones after `drain_s` seconds."""
    for delivery in deliveries:
        if not delivery.started_at:
            deliveries.nak(delivery, RETURN_DELAY_S)
            executor.cancel(delivery)
    try:
        async with asyncio.timeout(drain_s):
            await deliveries.none_held.wait()
    except TimeoutError:
        log.warning("%d tasks did not end within %.0f s of draining", len(deliveries), drain_s)
    await checkpoints.release_all()
    for delivery in deliveries:
        log.warning("task %s did not end in time; returning it to its lane", delivery.task.id)
        deliveries.nak(delivery, RETURN_DELAY_S)


async def say_goodbye(context: NodeContext, election: Election, heartbeat: HeartbeatPublisher) -> None:
    """Resign as leader, and publish that this node has left."""
    bus = context.bus
    if not bus.connected:
        return
    try:
        await election.resign()
        left = msgspec.structs.replace(context.record, state="left")
        await bus.kv(subjects.KV_NODES).put(left.id, encode(left))
        heartbeat.state = "left"
        heartbeat.publish()
        await journal.emit(bus, "leave", {"name": left.name}, left.id, 0)
    except QueztlError as error:
        log.debug("could not publish that this node leaves: %s", error)
