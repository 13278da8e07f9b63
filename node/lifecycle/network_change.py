"""How a running node follows its machine to another network: an interface comes or goes, an address changes.

`mesh/discovery/interfaces.py` decides which addresses may be used. Connections over an old address reconnect by
themselves; the watcher publishes the new addresses in mDNS, in the node record and to the bus server of this node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from mesh.cluster.routes import member_urls
from mesh.discovery.interfaces import usable_addresses
from mesh.errors import QueztlError
from node.context import NodeContext
from node.lifecycle.bus_host import BusHost

log = logging.getLogger(__name__)

CHECK_EVERY_S = 3.0
#: How long the bus may take to store the record before the addresses of others are looked at again, seconds.
PUBLISH_WITHIN_S = 2.0


class NetworkWatcher:
    """Keeps `context.addresses` true, and what depends on them."""

    def __init__(
        self, context: NodeContext, bus_host: BusHost, publish_location: Callable[[], Awaitable[None]]
    ) -> None:
        """`publish_location()` announces the node and writes its record; it raises QueztlError."""
        self._context, self._bus_host, self._publish_location = context, bus_host, publish_location
        self._unpublished = False

    async def run(self) -> None:
        """Follow this machine's addresses until cancelled."""
        context = self._context
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            peers = context.discovery.peers()
            if not context.bus.connected:
                # The bus may have moved as well: the nodes that run its servers announce their URLs.
                context.bus.learn(member_urls(peers, context.mesh.id))
            await self._bus_host.hear(peers)
            choice = await asyncio.to_thread(usable_addresses, context.config.interface)
            # Without any address the cable is out: the old address is likely to return, and no peer is reachable.
            if choice.addresses and choice.addresses != context.addresses and not choice.reason:
                log.info("this machine's addresses changed to %s", ", ".join(choice.addresses))
                await self._move(choice.addresses)
            if self._unpublished:
                await self._publish()

    async def _move(self, addresses: tuple[str, ...]) -> None:
        context = self._context
        context.addresses = addresses
        await context.discovery.move(addresses)
        self._bus_host.move(addresses)
        self._unpublished = True

    async def _publish(self) -> None:
        """Announce the new addresses, then write the record; again at the next check where the bus does not take it.

        The announcement comes first: the others may have to find this machine before the bus serves again.
        """
        try:
            async with asyncio.timeout(PUBLISH_WITHIN_S):
                await self._publish_location()
            self._unpublished = False
        except (QueztlError, TimeoutError) as error:
            log.info("could not publish the new addresses yet: %s", error or "the bus does not answer")
