"""How a node that the scaler started leaves: when the scaler orders it, or when it has lost the mesh.

A node that a person started ignores such orders. The leaving node finishes its running tasks, for an hour at most, and
returns unstarted ones to their lanes at once.
"""

from __future__ import annotations

import asyncio
import logging

from mesh import decoding, subjects
from mesh.bus.client import Message, Subscription
from mesh.capacity import token_of
from mesh.decoding import Unreadable
from mesh.supervision import every
from node.context import NodeContext

log = logging.getLogger(__name__)
#: How long running tasks may take to end after an order to leave, seconds.
FINISH_S = 3600.0
#: How often the dead-man switch checks the connection, seconds.
CHECK_EVERY_S = 1.0


class ManagedNode:
    """Carries out the scaler's orders to leave, and holds the dead-man switch."""

    def __init__(self, context: NodeContext) -> None:
        self._context, self._shutdown = context, context.shutdown
        self._token = token_of(context.config.started_as)

    async def listen(self) -> list[Subscription]:
        """Subscribe to orders to leave; no subscription for a node that a person started. Raises: BusUnavailable."""
        if not self._token:
            return []
        return [await self._context.bus.subscribe(subjects.leave(self._context.node_id), self._on_leave)]

    def _on_leave(self, message: Message) -> None:
        order = decoding.leave(message.data)
        if isinstance(order, Unreadable):
            log.warning("an order to leave can't be read and is ignored: it %s", order.reason)
            return
        if order.token == self._token and not self._shutdown.requested.is_set():
            log.info("the scaler ordered this node to leave: %s", order.reason)
            self._shutdown.drain_s = FINISH_S
            self._shutdown.request()

    async def run(self) -> None:
        """The dead-man switch: leave when the bus was unreachable for `leave_alone_s` seconds."""
        limit_s, lost_since = self._context.config.leave_alone_s, None
        if not limit_s:
            return
        loop = asyncio.get_running_loop()
        async for _ in every(CHECK_EVERY_S, jitter=0.1):
            if self._context.bus.connected:
                lost_since = None
            elif lost_since is None:
                lost_since = loop.time()
            elif loop.time() - lost_since > limit_s:
                log.warning("the mesh was unreachable for %d s; this node leaves", limit_s)
                self._shutdown.request()
                return
