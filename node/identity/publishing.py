"""Publishes what others know of this node when it changes: its location, and how fast it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from mesh.bus.server.data_dir import Route
from node.context import NodeContext
from node.identity.record import announcement_of


class IdentityPublisher:
    """Keeps the node's record and announcement up to date."""

    def __init__(
        self,
        context: NodeContext,
        bus_location: Callable[[], tuple[tuple[str, ...], tuple[Route, ...]]],
        publish_record: Callable[[], Awaitable[int]],
    ) -> None:
        """`bus_location()`: see `BusHost.location`; `publish_record()` writes the record, and returns its revision."""
        self._context, self._bus_location, self._publish_record = context, bus_location, publish_record

    async def announce(self) -> None:
        """Announce the node by mDNS as it is now."""
        await self._context.discovery.announce(announcement_of(self._context, *self._bus_location()))

    async def location(self) -> None:
        """The addresses of this node or of the bus servers changed. Raises: BusUnavailable."""
        await self.announce()
        await self._publish_record()

    async def speeds(self, seconds: Mapping[str, float]) -> None:
        """Kinds were measured: kind -> run time of its probe, seconds. Raises: BusUnavailable."""
        context = self._context
        context.capabilities = msgspec.structs.replace(context.capabilities, speeds=dict(seconds))
        await self._publish_record()

    def on_urls(self, urls: tuple[str, ...]) -> None:
        """The client URLs of the bus changed: store and publish them."""
        self._context.data.remember_mesh(self._context.mesh, urls)
        publishing = asyncio.get_running_loop().create_task(self.location(), name="publish bus servers")
        publishing.add_done_callback(lambda done: done.cancelled() or done.exception())
