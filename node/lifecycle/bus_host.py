"""This node's part in the bus: whether it runs a bus server, for whom that is reachable, and where the others are.

The master decides who hosts (`mesh/cluster/topology.py`) and asks; the node does it, and tells of it in KV `mesh` under
`server.<node>`. Every node reads these records: they are where the bus is found.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from mesh import subjects
from mesh.bus.client import Bus, Message, Subscription
from mesh.bus.server.supervisor import BusServer, BusSettings
from mesh.cluster.controller import forget_server, read_servers
from mesh.coordination import HostingAnswer, HostingRequest, ServerRecord, decode_hosting_request
from mesh.errors import BusUnavailable, CannotStart, QueztlError
from mesh.messages import encode
from mesh.supervision import within

log = logging.getLogger(__name__)

READ_EVERY_S = 30.0
RETRY_S = 1.0


class BusHost:
    """`start()`, then `run()` until cancelled; `leave()` before the node stops."""

    def __init__(
        self,
        bus: Bus,
        settings: BusSettings,
        folder: Any,
        server: BusServer | None,
        urls: tuple[str, ...],
        *,
        on_event: Callable[[str, dict[str, Any]], None],
        on_urls: Callable[[tuple[str, ...]], None],
    ) -> None:
        """`folder`: where a bus server keeps its store; `on_urls` is called with each new list of client URLs."""
        self._bus, self._settings, self._folder = bus, settings, folder
        self._on_event, self._on_urls = on_event, on_urls
        self.server = server
        self.urls = urls
        """Where clients reach the bus: each address of each server."""
        self.servers: tuple[ServerRecord, ...] = ()
        self._look = asyncio.Event()
        self._retired = asyncio.Event()
        self._busy: asyncio.Task[None] | None = None
        self._subscriptions: list[Subscription] = []
        self._fence = 0

    async def start(self) -> None:
        """Tell of the server that runs here, and listen. Raises: BusUnavailable."""
        if self.server is not None:
            await self._tell(self.server)
        else:
            await self._bus.kv(subjects.KV_MESH).delete(subjects.server_key(self._settings.node_id))
        self._subscriptions = [
            await self._bus.subscribe(subjects.bus_host(self._settings.node_id), self._on_request),
            await self._bus.kv(subjects.KV_MESH).watch(lambda _: self._look.set()),
        ]
        await self._read()

    async def run(self) -> None:
        """Keep up with where the servers are."""
        while True:
            self._look.clear()
            wait_s = READ_EVERY_S
            try:
                await self._read()
            except QueztlError as error:
                log.debug("the list of bus servers could not be read: %s", error.message)
                wait_s = RETRY_S
            await within(self._look, wait_s)

    def look(self) -> None:
        """Read the list again soon."""
        self._look.set()

    async def move(self, addresses: tuple[str, ...]) -> None:
        """This machine is reached at `addresses` now. Raises: BusUnavailable (told again when the bus is back)."""
        if self._settings.bind_host == "127.0.0.1":
            return
        self._settings = replace(self._settings, advertise=addresses)
        if self.server is not None:
            self.server.move(addresses)
            await self._tell(self.server)

    async def leave(self, limit_s: float) -> None:
        """Give the master time to hand over what this node's server holds; at once when there is nobody else."""
        if self.server is None:
            return
        began = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                await self._retired.wait()
            log.info("this node's bus server handed over in %.1f s", time.monotonic() - began)
        except TimeoutError:
            log.warning("nobody took over this node's bus server within %.0f s; it comes back with this node", limit_s)

    async def close(self) -> None:
        """Stop listening; a server that runs is ended in order and comes back with the node."""
        if self._busy is not None:
            self._busy.cancel()
            await asyncio.gather(self._busy, return_exceptions=True)
        if self.server is not None:
            await self.server.stop()

    # --- where the others are -----------------------------------------------------------------------
    async def _read(self) -> None:
        self.servers = tuple(await read_servers(self._bus))
        me = self._settings.node_id
        mine = next((one for one in self.servers if one.node == me), None)
        if self.server is not None and self._busy is None and mine is not None and mine.routes != self.server.routes:
            await self._tell(self.server)
        peers = [route for one in self.servers if one.node != me for route in one.routes]
        if self.server is not None and self._busy is None:
            await self.server.set_peers(peers)
        # One's own first: a node that hosts talks to its own server.
        order = sorted(self.servers, key=lambda one: (one.node != me, one.since))
        urls = tuple(dict.fromkeys(url for one in order for url in one.client_urls))
        if urls and urls != self.urls:
            self.urls = urls
            self._bus.learn(urls)
            self._on_urls(urls)

    async def _tell(self, server: BusServer) -> None:
        record = ServerRecord(
            node=self._settings.node_id,
            name=server.name,
            routes=server.routes,
            client_urls=server.address.client_urls,
            since=time.time(),
        )
        await self._bus.kv(subjects.KV_MESH).put(subjects.server_key(record.node), encode(record))

    # --- what the master asks -----------------------------------------------------------------------
    def _on_request(self, message: Message) -> None:
        try:
            error = self._accept(decode_hosting_request(message.data))
        except msgspec.MsgspecError:
            error = "this version does not understand the request"
        if message.reply:
            self._bus.send(message.reply, encode(HostingAnswer(error)))

    def _accept(self, request: HostingRequest) -> str:
        """Begin what is asked; "" or why not."""
        if request.fence < self._fence:
            return "a later master was here"
        self._fence = request.fence
        if self._busy is not None:
            return "it is busy with an earlier request"
        if request.do == "host":
            if self.server is not None:
                return "it runs one already"
            work = self._host(request.routes)
        elif self.server is None or self.server.name != request.name:
            return ""
        else:
            work = self._retire(self.server)
        self._busy = asyncio.get_running_loop().create_task(self._guarded(work), name="hosting")
        return ""

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except (QueztlError, OSError) as error:
            log.warning("bus server: %s", error)
        finally:
            self._busy = None
            self._look.set()

    async def _host(self, routes: tuple[tuple[str, int], ...]) -> None:
        server = BusServer(self._folder, self._settings, self._on_event)
        try:
            await server.start(join=routes)
            self.server = server
            await self._tell(server)
        except (CannotStart, BusUnavailable):
            self.server = None
            await server.retire()
            raise
        log.info("this node runs a bus server now: %s", server.name)

    async def _retire(self, server: BusServer) -> None:
        name, self.server = server.name, None
        # The servers that stay are told of first: this node's own connection goes with its server.
        await forget_server(self._bus, self._settings.node_id, name)
        await server.retire()
        self._retired.set()
        log.info("this node runs no bus server any more")
