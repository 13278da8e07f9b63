"""How a node gets onto a bus: it restarts the server it hosts, joins an existing mesh, or creates one.

In this order: the bus server in its own data directory, the addresses of `--join`, the servers it remembers, the meshes
it hears by mDNS, a new mesh. A server of its own that waits for others is told all addresses of them that any of these
ways yields (`peer_routes.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mesh import node_api
from mesh.bus.client import Bus
from mesh.bus.errors import NotNow
from mesh.bus.server.data_dir import put_aside, read_marker
from mesh.bus.server.introduction import routes_of
from mesh.bus.server.supervisor import BusServer
from mesh.cluster.waiting import waiting_network
from mesh.coordination import MeshRecord
from mesh.discovery.founding import REMEMBERED_PATIENCE_S, Create, Join, LocalNode
from mesh.discovery.identity import DataDir, MeshIdentity, new_token
from mesh.discovery.join import find_mesh, first_reachable
from mesh.discovery.mdns import Discovery
from mesh.errors import BusUnavailable, CannotStart, IncompatibleMesh, QueztlError
from mesh.membership.connections import system_password
from mesh.membership.mesh_record import (
    check_wire_version,
    create_mesh_record,
    read_mesh_record,
    read_mesh_record_anywhere,
)
from mesh.views import NetworkView, WaitingView
from node.config import NodeConfig
from node.identity.record import machine_name
from node.lifecycle import own_record
from node.lifecycle.connecting import bus_settings, connect
from node.lifecycle.declaring import Report, declare
from node.lifecycle.twins import refuse_copy, refuse_twin
from node.lifecycle.waiting import ServerReplaced, Waiting

log = logging.getLogger(__name__)
#: An address of --join may take this long to answer, seconds.
ANSWER_WITHIN_S = 10.0
#: What the REST bridge answers while the node waits.
Show = Callable[[NetworkView | None], None]
OnEvent = Callable[[str, dict[str, Any]], None]


@dataclass
class Joined:
    """A connection to the bus of a mesh."""

    bus: Bus
    mesh: MeshIdentity
    record: MeshRecord
    """The record of the mesh, as read from its bus."""
    urls: tuple[str, ...]
    how: str
    """created, resumed or joined"""
    server: BusServer | None = None
    """The bus server that this node hosts."""


async def join(
    config: NodeConfig,
    data: DataDir,
    discovery: Discovery,
    addresses: tuple[str, ...],
    *,
    api: str,
    version: str,
    on_event: OnEvent,
    report: Report,
    show: Show,
) -> Joined:
    """Get onto a bus. Waits without limit for a mesh that this node remembers; `report` says what it waits for.

    `addresses`: of this machine, for a bus server that it hosts; `api`: URL of the node's REST bridge; `on_event(kind,
    facts)` gets the events of the bus server; `show` gets the document about a node that waits. Raises: CannotStart.
    """
    attempt = _Attempt(config, data, discovery, addresses, api, version, on_event, report, show)
    own_mesh = _hosted_here(config, data)
    if own_mesh is not None and (joined := await attempt.resume(own_mesh)) is not None:
        return joined
    remembered = data.mesh if data.mesh is not None and data.mesh.name == config.mesh_name else None
    if config.join:
        try:
            return await attempt.join_configured()
        except CannotStart as error:
            # A machine behind --join may have another address by now; the mesh that this node remembers has others.
            if remembered is None:
                raise
            report(f"{error.message} Meanwhile this node looks for its mesh by mDNS and at the addresses it remembers.")
    if remembered is not None and (urls := await attempt.remembered_urls(remembered)):
        with contextlib.suppress(BusUnavailable):
            return await _join(config, data, urls, attempt.waiting(remembered))
    found = await attempt.search(remembered)
    if isinstance(found, Create):
        mesh = MeshIdentity(new_token("m"), config.mesh_name, time.time(), data.node_id)
        return await attempt.host(mesh, "created")
    mesh = remembered or MeshIdentity(found.mesh_id, config.mesh_name, 0.0, "")
    return await _join(config, data, found.urls, attempt.waiting(mesh))


@dataclass
class _Attempt:
    """The ways onto a bus, for one start of a node; the fields are the arguments of `join`."""

    config: NodeConfig
    data: DataDir
    discovery: Discovery
    addresses: tuple[str, ...]
    api: str
    version: str
    on_event: OnEvent
    report: Report
    show: Show

    def waiting(self, mesh: MeshIdentity) -> Waiting:
        """How this node waits for `mesh`."""
        return Waiting(
            self.config, self.data, mesh, self.discovery, self.api, self.version, self.report, self.show
        )  # fmt: skip

    async def resume(self, mesh: MeshIdentity) -> Joined | None:
        """Start the bus server in the data directory again; None when the mesh has replaced it: it is put aside then.

        Raises: CannotStart.
        """
        marker, waiting = read_marker(self.data.bus_folder), self.waiting(mesh)
        assert marker is not None
        urls = [*self.data.bus_urls, *await waiting.routes.given_urls()]
        if not marker.peers or await waiting.is_member(marker, urls):
            with contextlib.suppress(ServerReplaced):
                return await self.host(mesh, "resumed")
        log.info("the mesh replaced this node's bus server while the node was away; putting its store aside")
        await asyncio.to_thread(put_aside, self.data.bus_folder)
        return None

    async def join_configured(self) -> Joined:
        """Join by `--join`. Raises: CannotStart."""
        urls = await _configured_urls(self.config, self.data)
        try:
            return await _join(self.config, self.data, urls)
        except NotNow:
            raise
        except BusUnavailable as error:
            # A program accepts connections at that address, but it is not a bus server.
            raise CannotStart(f"can't join: {error.message}. Check the address.") from None

    async def remembered_urls(self, mesh: MeshIdentity, any_mesh: bool = False) -> tuple[str, ...]:
        """The URLs where a bus server of `mesh` answers, of those that are remembered or given; () when none does.

        `any_mesh`: one of another mesh of the same name will do, as after a merge that this node has missed.
        """
        urls = [*self.data.bus_urls, *await self.waiting(mesh).routes.given_urls()]
        ours = await routes_of(urls, mesh.id, system_password(mesh.id))
        if ours or not any_mesh:
            return tuple(ours)
        for url in urls:
            if await first_reachable((url,)) and await self._name_at(url) == mesh.name:
                return (url,)
        return ()

    async def _name_at(self, url: str) -> str:
        """The name of the mesh on the bus at `url`; "" when it can't be read."""
        try:
            bus = await connect(self.config, self.data, (url,))
        except BusUnavailable:
            return ""
        try:
            record = await read_mesh_record_anywhere(bus)
        except QueztlError:
            return ""
        finally:
            await bus.close()
        return record.name if record is not None else ""

    async def search(self, remembered: MeshIdentity | None) -> Create | Join:
        """Find a mesh by mDNS; one that is remembered also at its old addresses, which are dialled again and again."""
        me = LocalNode(self.data.node_id, self.config.mesh_name, "", remembered.id if remembered else "")

        def say(sentence: str) -> None:
            self.report(sentence)
            if remembered is not None:
                self.show(waiting_network(remembered, self.data.bus_urls, WaitingView(sentence)))

        waiting = self.waiting(remembered) if remembered is not None else None

        async def dial(waited_s: float) -> tuple[str, ...]:
            assert remembered is not None and waiting is not None
            await waiting.follow_addresses()
            return await self.remembered_urls(remembered, waited_s > REMEMBERED_PATIENCE_S)

        return await find_mesh(
            self.discovery, me, self.config.mesh_config, api=self.api, version=self.version, say=say,
            dial=dial if remembered is not None else None,
        )  # fmt: skip

    async def host(self, mesh: MeshIdentity, how: str) -> Joined:
        """Start the bus server of this node and connect to it. Raises: CannotStart, ServerReplaced."""
        config, data = self.config, self.data
        disk = shutil.disk_usage(data.path)
        server = BusServer(data.bus_folder, bus_settings(config, data, mesh, self.addresses), self.on_event)
        address = await server.start()
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(server.stop)
            try:
                # Of the remembered addresses only those that are still this mesh's: it would join another one there.
                bus = await connect(config, data, (address.local_url, *await self.remembered_urls(mesh)))
                undo.push_async_callback(bus.close)
                waiting = self.waiting(mesh)
                if server.peers:
                    await waiting.until_majority(bus, server)
                    await waiting.until_led(bus, address.client_urls, server)
                if not server.created_now:
                    await own_record.repair(bus, mesh, data)
                    if (before := await read_mesh_record(bus)) is not None:
                        check_wire_version(before)  # before the streams are changed to what this version needs
                await declare(bus, config.mesh_config, disk.free, waiting.publish_reason if server.peers else None)
                with contextlib.suppress(QueztlError):  # it is there already
                    await create_mesh_record(bus, own_record.new_record(mesh, await own_record.read_epoch(bus)))
                known = await own_record.read(bus)
                # The others have announced themselves while the server started: one may have a copy of this store.
                await refuse_copy(
                    config, data, [peer for peer in self.discovery.peers() if peer.mesh_id == mesh.id],
                    address.client_urls,
                )  # fmt: skip
            except IncompatibleMesh as error:
                raise CannotStart(
                    f"{data.bus_folder} can't be used: {error.message}, or start a new mesh with another --data"
                ) from None
            except NotNow:
                raise
            except CannotStart:
                raise
            except QueztlError as error:
                raise CannotStart(f"the bus server runs, but it does not answer: {error.message}") from None
            own_record.remember(data, mesh, address.client_urls, known)
            undo.pop_all()
        return Joined(bus, mesh, known, address.client_urls, how, server)


def _hosted_here(config: NodeConfig, data: DataDir) -> MeshIdentity | None:
    """The mesh whose bus server has its store in this data directory. Raises: CannotStart when it has another name."""
    marker = read_marker(data.bus_folder)
    if marker is None:
        return None
    if data.mesh is None or data.mesh.id != marker.mesh_id:
        # The node was killed after it created the mesh and before it stored its identity, or an earlier version stored
        # the id in a forged record: the store names the mesh.
        return MeshIdentity(marker.mesh_id, config.mesh_name, time.time(), data.node_id)
    if data.mesh.name != config.mesh_name:
        raise CannotStart(
            f"{data.path} belongs to the mesh {data.mesh.name} and holds its bus store; start the node with "
            f"--mesh {data.mesh.name}, or use another --data for the mesh {config.mesh_name}"
        )
    return data.mesh


async def _join(config: NodeConfig, data: DataDir, urls: tuple[str, ...], waiting: Waiting | None = None) -> Joined:
    """Connect to the bus at `urls`. With `waiting` it is known to be a mesh: then wait until it has started.

    Raises: CannotStart; BusUnavailable when nothing answers; NotNow when its servers are between two states.
    """
    bus = await connect(config, data, urls)
    async with contextlib.AsyncExitStack() as undo:
        undo.push_async_callback(bus.close)
        try:
            if waiting is not None:
                await waiting.until_led(bus, urls)
            remembered = data.mesh if data.mesh is not None and data.mesh.name == config.mesh_name else None
            if remembered is not None and remembered.id == bus.mesh_id:
                await own_record.repair(bus, remembered, data)
            known = await own_record.read(bus)
        except (IncompatibleMesh, NotNow):
            raise
        except QueztlError as error:
            raise CannotStart(f"the bus at {', '.join(urls)} is not a Queztl mesh: {error.message}") from None
        mesh = MeshIdentity(known.id, known.name, known.founded_at, known.founder)
        if remembered is not None and remembered.id == mesh.id and remembered.founder:
            mesh = remembered
        if mesh.name != config.mesh_name:
            raise CannotStart(
                f"the mesh at {', '.join(urls)} is called {mesh.name}, not {config.mesh_name}; add --mesh {mesh.name}"
            )
        await refuse_twin(bus, data, config.interface)
        own_record.remember(data, mesh, urls, known)
        undo.pop_all()
    return Joined(bus, mesh, known, urls, "joined")


async def _configured_urls(config: NodeConfig, data: DataDir) -> tuple[str, ...]:
    """The bus URLs behind --join, a reachable one first. A node's API returns them when this node registers there.

    Raises: CannotStart.
    """
    urls: list[str] = [url for url in config.join if url.startswith(("nats://", "tls://"))]
    problems: list[str] = []
    for api in (url for url in config.join if url.startswith("http")):
        body = {"name": machine_name(data.node_id), "id": data.node_id, "labels": config.labels}
        try:
            answer = await node_api.call(api, "POST", "/nodes/register", body, timeout_s=ANSWER_WITHIN_S)
            urls += answer["bus"]["urls"]
        except QueztlError as error:
            problems.append(error.message)
        except (KeyError, TypeError):
            problems.append(f"{api} answers, but not as a node of a mesh")
    first = await first_reachable(urls, ANSWER_WITHIN_S)
    if not first:
        tried = "; ".join([*problems, *(f"no bus answers at {url}" for url in urls)])
        raise CannotStart(f"can't join: {tried}. Check the address, and that a firewall lets it through.")
    return (first, *(url for url in urls if url != first))
