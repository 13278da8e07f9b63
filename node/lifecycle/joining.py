"""How a node gets onto a bus: it restarts the server it hosts, joins an existing mesh, or creates one.

In this order: the bus server in its own data directory, the addresses of `--join`, the servers it remembers, the meshes
it hears by mDNS, a new mesh.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from mesh import decoding, node_api, subjects
from mesh.bus.client import Bus
from mesh.bus.server.config import SYSTEM_USER
from mesh.bus.server.data_dir import put_aside, read_marker
from mesh.bus.server.supervisor import BusServer, BusSettings
from mesh.cluster.raft_meta import leaderless
from mesh.coordination import MeshRecord
from mesh.decoding import readable
from mesh.discovery.founding import Found, Me
from mesh.discovery.identity import DataDir, MeshIdentity, new_token
from mesh.discovery.join import find_mesh, first_reachable
from mesh.discovery.mdns import Discovery
from mesh.errors import BusUnavailable, CannotStart, IncompatibleMesh, QueztlError
from mesh.limits import fit_to_descriptors
from mesh.membership.connections import connection_name, system_password
from mesh.membership.mesh_record import check_wire_version, create_mesh_record, read_mesh_record, repair_mesh_record
from mesh.messages import WIRE_VERSION
from node.config import NodeConfig
from node.identity.record import machine_name
from node.lifecycle.declaring import Report, declare
from node.probes import descriptors

log = logging.getLogger(__name__)
#: An address of --join may take this long to answer, seconds.
ANSWER_WITHIN_S = 10.0
#: The server's own limit for all streams together, whatever the size of the disk. Every stream has a limit that follows
#: the free disk of the node that created the mesh, and a server with a smaller disk must be able to take the replicas.
STORE_BYTES = 1 << 50
LEADERS_CHECK_S = 0.25
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
) -> Joined:
    """Get onto a bus. Waits without limit for a mesh that this node remembers; `report` says what it waits for.

    `addresses`: of this machine, for a bus server that it hosts; `api`: URL of the node's REST bridge; `on_event(kind,
    facts)` gets the events of the bus server. Raises: CannotStart.
    """
    own_mesh = _hosted_here(config, data)
    if own_mesh is not None and await _still_a_member(config, data):
        return await _host(config, data, own_mesh, addresses, "resumed", on_event, report)
    if config.join:
        urls = await _configured_urls(config, data)
        try:
            return await _join(config, data, urls)
        except BusUnavailable as error:
            # A program accepts connections at that address, but it is not a bus server.
            raise CannotStart(f"can't join: {error.message}. Check the address.") from None
    remembered = data.mesh if data.mesh is not None and data.mesh.name == config.mesh_name else None
    if remembered is not None and (first := await first_reachable(data.bus_urls)):
        with contextlib.suppress(BusUnavailable):
            return await _join(config, data, (first, *data.bus_urls), report)
    me = Me(data.node_id, config.mesh_name, "", remembered.id if remembered else "")
    found = await find_mesh(discovery, me, config.mesh_config, api=api, version=version, say=report)
    if isinstance(found, Found):
        mesh = MeshIdentity(new_token("m"), config.mesh_name, time.time(), data.node_id)
        return await _host(config, data, mesh, addresses, "created", on_event, report)
    return await _join(config, data, found.urls, report)


def _hosted_here(config: NodeConfig, data: DataDir) -> MeshIdentity | None:
    """The mesh whose bus server has its store in this data directory. Raises: CannotStart when it has another name."""
    """The mesh whose bus lies in this node's own folder; None when there is none (or it is another mesh's)."""
    marker = read_marker(data.bus_folder)
    if marker is None:
        return None
    if data.mesh is None:
        # The node was killed after it created the mesh and before it stored its identity: the store names the mesh.
        return MeshIdentity(marker.mesh_id, config.mesh_name, time.time(), data.node_id)
    if data.mesh.id != marker.mesh_id or data.mesh.name != config.mesh_name:
        raise CannotStart(
            f"{data.path} belongs to the mesh {data.mesh.name} and holds its bus store; start the node with "
            f"--mesh {data.mesh.name}, or use another --data for the mesh {config.mesh_name}"
        )
    return data.mesh


async def open_system(urls: tuple[str, ...], mesh_id: str, name: str, config: NodeConfig) -> Bus:
    """A connection to the system account of the bus, which shows and ends connections. Raises: BusUnavailable."""
    return await Bus.connect(
        urls, name=name, config=config.mesh_config, user=SYSTEM_USER, password=system_password(mesh_id)
    )


def connector(config: NodeConfig, node: str) -> Callable[[tuple[str, ...]], Awaitable[Bus]]:
    """A function that connects to the bus of another mesh, given its URLs. It raises BusUnavailable."""

    async def connect(urls: tuple[str, ...]) -> Bus:
        return await Bus.connect(urls, name=f"duplicate-mesh detector {node}", config=config.mesh_config)

    return connect


def bus_settings(config: NodeConfig, data: DataDir, mesh: MeshIdentity, addresses: tuple[str, ...]) -> BusSettings:
    """The settings of a bus server that this node hosts; on loopback it is reachable from this machine only."""
    local = all(address.startswith("127.") for address in addresses)
    return BusSettings(
        mesh_id=mesh.id,
        mesh_name=mesh.name,
        node_id=data.node_id,
        system_password=system_password(mesh.id),
        bind_host="127.0.0.1" if local else "0.0.0.0",
        advertise=() if local else addresses,
        client_port=config.bus_port or 4222,
        client_port_required=bool(config.bus_port),
        sync_interval_s=config.mesh_config.storage_sync_s,
        store_max_bytes=STORE_BYTES,
        max_connections=fit_to_descriptors(config.mesh_config.limits, descriptors.hard_limit()).bus_connections,
    )


async def _host(
    config: NodeConfig,
    data: DataDir,
    mesh: MeshIdentity,
    addresses: tuple[str, ...],
    how: str,
    on_event: OnEvent,
    report: Report,
) -> Joined:
    """Start the bus server of this node and connect to it. Raises: CannotStart."""
    disk = shutil.disk_usage(data.path)
    settings = bus_settings(config, data, mesh, addresses)
    server = BusServer(data.bus_folder, settings, on_event)
    address = await server.start()
    async with contextlib.AsyncExitStack() as undo:
        undo.push_async_callback(server.stop)
        try:
            bus = await _connect(config, data, (address.local_url, *data.bus_urls))
            undo.push_async_callback(bus.close)
            if server.peers:
                await _until_majority(bus, report)
                await _until_led(bus, report)
            if (before := await read_mesh_record(bus)) is not None:
                check_wire_version(before)  # before the streams are changed to what this version needs
            await declare(bus, config.mesh_config, disk.free, report if server.peers else None)
            await repair_mesh_record(bus, _new_record(mesh))
            with contextlib.suppress(QueztlError):
                # Created once, with the streams: the epoch stands for this WORK stream in the ids of ingress messages.
                await create_mesh_record(bus, _new_record(mesh))
            known = await _identity(bus)
        except IncompatibleMesh as error:
            raise CannotStart(
                f"{data.bus_folder} can't be used: {error.message}, or start a new mesh with another --data"
            ) from None
        except QueztlError as error:
            raise CannotStart(f"the bus server runs, but it does not answer: {error.message}") from None
        data.remember_mesh(mesh, address.client_urls)
        undo.pop_all()
    return Joined(bus, mesh, known, address.client_urls, how, server)


async def _still_a_member(config: NodeConfig, data: DataDir) -> bool:
    """Whether the bus server of this data directory may start again; if not, its store is put aside.

    While the node was away, the leader may have replaced its server; then the mesh has no record of it. When no other
    server is reachable, as after a power cut, it starts: without the others it has no majority.
    """
    marker = read_marker(data.bus_folder)
    assert marker is not None
    if not marker.peers:
        return True
    others = [url for url in data.bus_urls if not url.endswith(f":{marker.client_port}") or len(data.bus_urls) > 1]
    first = await first_reachable(others)
    if not first:
        return True
    try:
        bus = await _connect(config, data, (first,))
    except BusUnavailable:
        return True
    try:
        entry = await bus.kv(subjects.KV_MESH).get(subjects.server_key(data.node_id))
    except BusUnavailable:
        return True
    finally:
        await bus.close()
    record = readable(decoding.server, entry)
    # Where the record can't be read, nobody knows: the store stays, for it may hold the only copy of something.
    if entry is not None and (record is None or record.name == marker.server_name):
        return True
    log.info("the mesh replaced this node's bus server while the node was away; putting its store aside")
    await asyncio.to_thread(put_aside, data.bus_folder)
    return False


async def _until_majority(bus: Bus, report: Report) -> None:
    """Return once the bus answers: its servers elect a leader when a majority of them runs."""
    reported = False
    while True:
        try:
            await bus.check_ready(timeout_s=2.0)
            return
        except QueztlError:
            if not reported:
                report("this node's bus server is up and waits for a majority of the servers; `queztl bus` lists them")
            reported = True


async def _until_led(bus: Bus, report: Report) -> None:
    """Return once every stream has a leader: after a power cut each elects one, some seconds after the bus did."""
    reported = False
    while True:
        try:
            waiting = await leaderless(bus)
            if not waiting:
                return
            reason = f"waiting for the bus to elect the leaders of the streams {', '.join(sorted(waiting))}"
        except QueztlError as error:
            reason = f"waiting for the bus: {error.message}"
        if not reported:
            report(reason)
        reported = True
        await asyncio.sleep(LEADERS_CHECK_S)


async def _join(config: NodeConfig, data: DataDir, urls: tuple[str, ...], report: Report | None = None) -> Joined:
    """Connect to the bus at `urls`. With `report` it is known to be a mesh: then wait until it has started.

    Raises: CannotStart; BusUnavailable when nothing answers.
    """
    bus = await _connect(config, data, urls)
    async with contextlib.AsyncExitStack() as undo:
        undo.push_async_callback(bus.close)
        try:
            if report is not None:
                await _until_led(bus, report)
            if data.mesh is not None and data.mesh.name == config.mesh_name:
                await repair_mesh_record(bus, _new_record(data.mesh))
            known = await _identity(bus)
        except IncompatibleMesh:
            raise
        except QueztlError as error:
            raise CannotStart(f"the bus at {', '.join(urls)} is not a Queztl mesh: {error.message}") from None
        mesh = MeshIdentity(known.id, known.name, known.founded_at, known.founder)
        if mesh.name != config.mesh_name:
            raise CannotStart(
                f"the mesh at {', '.join(urls)} is called {mesh.name}, not {config.mesh_name}; add --mesh {mesh.name}"
            )
        data.remember_mesh(mesh, urls)
        undo.pop_all()
    return Joined(bus, mesh, known, urls, "joined")


async def _connect(config: NodeConfig, data: DataDir, urls: tuple[str, ...]) -> Bus:
    name = connection_name(data.node_id, data.incarnation)
    return await Bus.connect(urls, name=name, config=config.mesh_config)


def _new_record(mesh: MeshIdentity) -> MeshRecord:
    return MeshRecord(
        id=mesh.id,
        name=mesh.name,
        founded_at=mesh.founded_at,
        founder=mesh.founder,
        epoch=f"w{secrets.token_hex(4)}",
        wire_version=WIRE_VERSION,
    )


async def _identity(bus: Bus) -> MeshRecord:
    """The record of the mesh on this bus. Raises: BusUnavailable, IncompatibleMesh."""
    record = await read_mesh_record(bus)
    if record is None:
        raise BusUnavailable("it has no mesh identity")
    check_wire_version(record)
    return record


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
