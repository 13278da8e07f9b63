"""What makes a node one that the scaler started: it goes when it is told, and when it has lost its mesh.

A machine that people started obeys no such order, whoever sends it. The node that goes finishes what it runs first, for
as long as that takes (an hour at most); what it had not begun goes back to its lane at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from mesh import subjects
from mesh.capacity import decode_leave, token_of
from mesh.supervision import every

if TYPE_CHECKING:
    from mesh.bus.client import Message, Subscription
    from node.daemon import Node

log = logging.getLogger(__name__)
#: What runs when the order comes may take this long to end, seconds.
FINISH_S = 3600.0
#: How often the connection is looked at, seconds.
LOOK_S = 1.0


class Managed:
    """One node's part in being scaled."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._token = token_of(node.config.started_as)

    async def listen(self) -> list[Subscription]:
        """Hear orders to leave; nothing for a node that people started."""
        if not self._token:
            return []
        return [await self._node.bus.subscribe(subjects.leave(self._node.data.node_id), self._on_leave)]

    def _on_leave(self, message: Message) -> None:
        try:
            order = decode_leave(message.data)
        except msgspec.MsgspecError as error:
            log.warning("an order to leave can't be read and is ignored: %s", error)
            return
        if order.token == self._token and not self._node.stop_asked.is_set():
            log.info("told to leave by the scaler: %s", order.reason)
            self._node.drain_s = FINISH_S
            self._node.stop_asked.set()

    async def run(self) -> None:
        """The dead-man switch: leave when the bus was not reached for `leave_alone_s`."""
        limit_s, alone_since = self._node.config.leave_alone_s, None
        if not limit_s:
            return
        loop = asyncio.get_running_loop()
        async for _ in every(LOOK_S, jitter=0.1):
            if self._node.bus.connected:
                alone_since = None
            elif alone_since is None:
                alone_since = loop.time()
            elif loop.time() - alone_since > limit_s:
                log.warning("the mesh was not reached for %d s, so this node leaves", limit_s)
                self._node.stop_asked.set()
                return
