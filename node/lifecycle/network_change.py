"""How a running node follows its machine to another network: an interface comes or goes, an address changes.

`mesh/discovery/interfaces.py` decides which addresses may be used. Connections over an old address reconnect by
themselves; the watcher publishes the new addresses in mDNS, in the node record and to the bus server of this node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from mesh.discovery.announcement import MEMBER, Announcement
from mesh.discovery.interfaces import usable_addresses
from mesh.discovery.mdns import Discovery
from mesh.errors import QueztlError
from node.context import NodeContext
from node.lifecycle.bus_host import BusHost

log = logging.getLogger(__name__)

CHECK_EVERY_S = 3.0


class NetworkWatcher:
    """Keeps `context.addresses` and `context.discovery` true."""

    def __init__(
        self, context: NodeContext, bus_host: BusHost, publish_location: Callable[[], Awaitable[None]]
    ) -> None:
        """`publish_location()` announces the node and writes its record; it raises QueztlError."""
        self._context, self._bus_host, self._publish_location = context, bus_host, publish_location

    async def run(self) -> None:
        """Follow this machine's addresses until cancelled."""
        context = self._context
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if not context.bus.connected:
                # The bus may have moved as well; nodes that still reach it announce its URLs.
                context.bus.learn(announced_urls(context.discovery.peers(), context.mesh.id))
            choice = await asyncio.to_thread(usable_addresses, context.config.interface)
            # Without any address the cable is out: the old address is likely to return, and no peer is reachable.
            if not choice.addresses or choice.addresses == context.addresses or choice.reason:
                continue
            log.info("this machine's addresses changed to %s", ", ".join(choice.addresses))
            await self._move(choice.addresses)

    async def _move(self, addresses: tuple[str, ...]) -> None:
        context = self._context
        context.addresses = addresses
        previous, context.discovery = context.discovery, Discovery(addresses)
        await previous.stop()
        await context.discovery.start()
        try:
            await self._bus_host.move(addresses)
            await self._publish_location()
        except QueztlError as error:
            # Node._on_reconnect publishes the record again when the bus is back.
            log.info("could not publish the new addresses yet: %s", error.message)


def announced_urls(peers: Iterable[Announcement], mesh_id: str) -> list[str]:
    """The bus URLs that members of the mesh `mesh_id` announce. Pure."""
    return [url for peer in peers if peer.mesh_id == mesh_id and peer.role == MEMBER for url in peer.urls]
