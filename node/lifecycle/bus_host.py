"""This node's part in hosting the bus: it starts and stops a bus server on the leader's request.

The leader decides which nodes host a server (`mesh/cluster/topology.py`) and sends a request; the node carries it out
and publishes its server in KV `mesh` under `server.<node>`. Every node reads these records to find the bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh import decoding, subjects
from mesh.bus.client import Bus, Message
from mesh.bus.server.data_dir import Route
from mesh.bus.server.supervisor import BusServer, BusSettings
from mesh.cluster.controller import forget_server, read_servers
from mesh.cluster.own_group import is_in_group
from mesh.cluster.restart_turn import turn_of
from mesh.cluster.routes import announced_routes
from mesh.coordination import HostingAnswer, HostingRequest, MeshRecord, ServerRecord
from mesh.decoding import Unreadable
from mesh.discovery.announcement import Announcement
from mesh.errors import BusUnavailable, CannotStart, QueztlError
from mesh.leader.election import leading_fence
from mesh.membership.member import UP, Member
from mesh.membership.mesh_record import repair_mesh_record
from mesh.messages import encode
from mesh.supervision import wait_until_set
from node.identity.record import machine_name
from node.lifecycle.peer_routes import PeerRoutes
from node.lifecycle.store_guard import StoreGuard

log = logging.getLogger(__name__)

READ_EVERY_S = 30.0
RETRY_S = 1.0
#: Requests that are answered at the same time; the leader sends one after the other.
MOST_REQUESTS = 16


def has_successor(members: Iterable[Member], node: str, addresses: tuple[str, ...]) -> bool:
    """Whether another machine could take over the bus server of `node`, which is at `addresses`. Pure."""
    own = set(addresses)
    others = [member.record for member in members if member.record.id != node and member.state == UP]
    return any(not own & set(record.addresses) for record in others)


def _describes(record: ServerRecord | None, server: BusServer) -> bool:
    """Whether the record is that of this server, at its present addresses."""
    if record is None:
        return False
    recorded = (record.name, record.routes, record.client_urls)
    return recorded == (server.name, server.routes, server.address.client_urls)


class BusHost:
    """Call `start()`, then `run()` until cancelled; `leave()` before the node stops."""

    def __init__(
        self,
        bus: Bus,
        settings: BusSettings,
        folder: Path,
        server: BusServer | None,
        urls: tuple[str, ...],
        *,
        on_event: Callable[[str, dict[str, Any]], None],
        on_urls: Callable[[tuple[str, ...]], None],
        join: Sequence[str] = (),
        record: MeshRecord | None = None,
    ) -> None:
        """`folder`: the store of the bus server; `server`: one that runs already; `urls`: client URLs known now.

        `on_event(kind, facts)` gets the events of the server, `on_urls(urls)` each new list of client URLs;
        `join`: addresses of `--join`, where other servers may be found. `record`: that of the mesh; it is written again
        over one that is forged or can't be read, without which no node could join.
        """
        self._bus, self._settings, self._folder = bus, settings, folder
        self._on_event, self._on_urls, self._record = on_event, on_urls, record
        self._heard: tuple[Announcement, ...] = ()
        self._peer_routes = PeerRoutes(settings.mesh_id, lambda: self._heard, join)
        self.server = server
        self.urls = urls
        """Client URLs of the bus: each address of each server, this node's server first."""
        self.servers: tuple[ServerRecord, ...] = ()
        self._guard = StoreGuard(
            bus, settings.node_id, machine_name(settings.node_id), lambda: self.server, lambda: self.servers
        )
        self._changed = asyncio.Event()
        self._retired = asyncio.Event()
        self._busy: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._doing = ""
        self._turn = 0
        """The revision of the turn in which the bus server was restarted last."""

    @property
    def location(self) -> tuple[tuple[str, ...], tuple[Route, ...]]:
        """(the client URLs of the bus, where other servers reach the one that runs here; empty when none does)"""
        return self.urls, self.server.routes if self.server is not None else ()

    async def start(self) -> None:
        """Publish the server that runs here, and listen for requests. Raises: BusUnavailable."""
        if self.server is not None:
            await self._publish(self.server)
        else:
            await self._bus.kv(subjects.KV_MESH).delete(subjects.server_key(self._settings.node_id))
        await self._bus.subscribe(subjects.bus_host(self._settings.node_id), self._on_request)
        await self._bus.kv(subjects.KV_MESH).watch(lambda _: self._changed.set())
        await self._read()

    async def run(self) -> None:
        """Keep the list of bus servers up to date, and guard the store of this node's server, until cancelled."""
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._keep_list(), name="list of bus servers")
            parts.create_task(self._guard.run(), name="store guard")

    async def _keep_list(self) -> None:
        while True:
            self._changed.clear()
            wait_s = READ_EVERY_S
            try:
                await self._read()
            except (QueztlError, OSError) as error:  # OSError: its list can't be written on a full disk
                log.debug("could not read the list of bus servers: %s", error)
                wait_s = RETRY_S
                await self._find_peers()
            await wait_until_set(self._changed, wait_s)

    async def _find_peers(self, ask: bool = True) -> None:
        """Look for the other servers elsewhere than in the mesh, which can't be asked; `ask`: see PeerRoutes."""
        if self.server is None or self._busy is not None:
            return
        try:
            await self._peer_routes.find(self.server, ask)
        except OSError as error:  # a full disk
            log.debug("could not store where the other bus servers are: %s", error)

    def refresh_soon(self) -> None:
        """Read the list of bus servers again soon."""
        self._changed.set()

    async def hear(self, peers: tuple[Announcement, ...]) -> None:
        """The current announcements of other nodes: their bus servers may have other addresses."""
        before, self._heard = self._heard, peers
        mesh = self._settings.mesh_id
        if announced_routes(before, mesh) != announced_routes(peers, mesh):
            await self._find_peers(ask=False)

    def move(self, addresses: tuple[str, ...]) -> None:
        """This machine's addresses changed. `run` publishes those of its server as soon as the bus takes them."""
        if self._settings.bind_host == "127.0.0.1":
            return
        self._settings = replace(self._settings, advertise=addresses)
        if self.server is not None:
            self.server.move(addresses)
            self.urls = self._client_urls()
            self._bus.learn(self.urls)
            self._changed.set()

    async def leave(self, limit_s: float) -> None:
        """Wait until the leader has moved this node's server elsewhere, for `limit_s` seconds at most."""
        if self.server is None:
            return
        began = time.monotonic()
        try:
            async with asyncio.timeout(limit_s):
                await self._retired.wait()
            log.info("this node's bus server was replaced in %.1f s", time.monotonic() - began)
        except TimeoutError:
            log.warning(
                "no other node replaced this node's bus server within %.0f s; it starts again with this node", limit_s
            )

    async def close(self) -> None:
        """Stop the bus server, if one runs here; its store stays for the next start of the node."""
        for task in (*self._answering, *filter(None, (self._busy,))):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self.server is not None:
            await self.server.stop()

    # --- the list of bus servers --------------------------------------------------------------------
    async def _read(self) -> None:
        self.servers = tuple(await read_servers(self._bus))
        if self._record is not None:
            known = {name: getattr(self._record, name) for name in ("id", "name", "wire_version", "epoch")}
            await repair_mesh_record(self._bus, self._record, known)
        node = self._settings.node_id
        own = next((record for record in self.servers if record.node == node), None)
        # The record is missing when the server was replaced while this node restarted. The leader then ends the server:
        # without the record it would run on outside the group, and keep this node from running another one. One that
        # says something else is forged, or of another address.
        if self.server is not None and self._busy is None and not _describes(own, self.server):
            await self._publish(self.server)
        elif self.server is None and self._busy is None and own is not None:
            await forget_server(self._bus, node, own.name)
        # Not before: what was read may be this server's own old copy, and only a majority takes what was published.
        if self.server is not None and self._busy is None:
            await self._peer_routes.follow(self.server, self.servers)
        urls = self._client_urls()
        if urls and urls != self.urls:
            self.urls = urls
            self._bus.learn(urls)
            self._on_urls(urls)

    def _client_urls(self) -> tuple[str, ...]:
        """The client URLs of all servers; a node that hosts a server connects to it first."""
        node = self._settings.node_id
        own = self.server.address.client_urls if self.server is not None and self._busy is None else ()
        order = sorted(self.servers, key=lambda record: (record.node != node, record.since))
        recorded = (url for record in order if not own or record.node != node for url in record.client_urls)
        return tuple(dict.fromkeys((*own, *recorded)))

    async def _publish(self, server: BusServer) -> None:
        record = ServerRecord(
            node=self._settings.node_id,
            name=server.name,
            routes=server.routes,
            client_urls=server.address.client_urls,
            since=time.time(),
        )
        await self._bus.kv(subjects.KV_MESH).put(subjects.server_key(record.node), encode(record))

    # --- requests of the leader ---------------------------------------------------------------------
    def _on_request(self, message: Message) -> None:
        if len(self._answering) < MOST_REQUESTS:
            answering = asyncio.get_running_loop().create_task(self._answer(message), name="hosting request")
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)

    async def _answer(self, message: Message) -> None:
        request = decoding.hosting_request(message.data)
        try:
            if isinstance(request, Unreadable):
                answer = HostingAnswer(f"the request {request.reason}")
            elif request.fence != await leading_fence(self._bus):
                answer = HostingAnswer("no leader of this mesh has that fence")
            elif request.do == "restart" and not await self._has_turn():
                answer = HostingAnswer("it is not its turn to be restarted")  # a leader takes the turn first
            elif request.do == "stop" and await self._is_needed(request.name):
                answer = HostingAnswer("its bus server is a member of the servers' group")  # no leader asks for that
            else:
                answer = self._accept(request)
            if message.reply:
                self._bus.send(message.reply, encode(answer))
        except QueztlError as error:
            log.info("could not answer a request about this node's bus server: %s", error.message)

    async def _is_needed(self, name: str) -> bool:
        """Whether the server `name` runs here and is a member, or nobody can tell. Raises: BusUnavailable.

        A server that is stopped on request puts its store aside, and may have the only copy. A leader removes it from
        the group first.
        """
        if self.server is None or self.server.name != name:
            return False
        own = self.server.address.client_urls
        others = tuple(url for url in self.urls if url not in own)
        for urls in filter(None, (others, own)):  # a server that never joined hears no leader itself
            with contextlib.suppress(BusUnavailable):
                found = await is_in_group(urls, self._settings.system_password, name, self._bus.config)
                if found is not None:
                    return found
        return True

    async def _has_turn(self) -> bool:
        """Whether the bus server may be restarted now: once in each turn. Raises: BusUnavailable."""
        before, self._turn = self._turn, await turn_of(self._bus, self._settings.node_id)
        return self._turn not in (0, before)

    def _accept(self, request: HostingRequest) -> HostingAnswer:
        """Begin to carry out a request, or refuse it."""
        if self._busy is not None:
            return HostingAnswer("it is carrying out an earlier request", doing=self._doing)
        if request.do == "host":
            if self.server is not None:
                return HostingAnswer("it runs a bus server already", doing="host")
            work = self._host(request.routes)
        elif self.server is None or self.server.name != request.name:
            return HostingAnswer()
        elif request.do == "restart":
            if not self._guard.health.stores:
                return HostingAnswer(self._guard.health.says)
            work = self.server.restart("the leader orders it: its copies do not catch up")
        else:
            work = self._retire(self.server)
        self._doing = "host" if request.do == "host" else "stop"
        self._busy = asyncio.get_running_loop().create_task(self._guarded(work), name="hosting")
        return HostingAnswer()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (QueztlError, OSError) as error:
            log.warning("could not carry out a request of the leader about this node's bus server: %s", error)
        finally:
            self._busy = None
            self._changed.set()

    async def _host(self, routes: tuple[tuple[str, int], ...]) -> None:
        server = BusServer(self._folder, self._settings, self._on_event)
        try:
            await server.start(join=routes)
            self.server = server
            await self._publish(server)
        except (CannotStart, BusUnavailable):
            self.server = None
            await server.retire()
            raise
        log.info("this node now runs the bus server %s", server.name)

    async def _retire(self, server: BusServer) -> None:
        name, self.server = server.name, None
        # Remove the record first: this node's connection may end with its server.
        await forget_server(self._bus, self._settings.node_id, name)
        await server.retire()
        self._retired.set()
        log.info("this node no longer runs a bus server")
