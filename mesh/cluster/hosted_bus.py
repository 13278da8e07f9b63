"""The bus server in a node's data directory, for a person who recovers a mesh: read, reached, or started for a moment.

It works where no node answers: the node waits for a majority, has another API address, or does not run.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shlex
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mesh import data_folder
from mesh.bus.server.config import SYSTEM_USER
from mesh.bus.server.data_dir import BusMarker, Route, read_marker
from mesh.bus.server.layout import LOOPBACK, BusSettings
from mesh.bus.server.supervisor import BusServer
from mesh.cluster.routes import announced_routes, join_routes
from mesh.cluster.waiting import known_members
from mesh.discovery.identity import MeshIdentity, open_data_dir, read_stored
from mesh.discovery.mdns import Discovery
from mesh.errors import NotFound
from mesh.membership.connections import system_password
from mesh.subjects import host_of

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: How long to listen for the announcements of the other servers, seconds.
LISTEN_S = 2.5


@dataclass(frozen=True)
class HostedBus:
    """What a data directory says of its bus server."""

    path: Path
    mesh: MeshIdentity
    marker: BusMarker
    used_by: str
    """Pid of the node that runs on the directory; "" when none does."""

    @property
    def rescue_command(self) -> str:
        """What a person runs on this machine when the other servers are lost for good."""
        return f"queztl bus rescue --data {shlex.quote(str(self.path))} --yes"

    @property
    def members(self) -> dict[str, Sequence[Route]]:
        """Node id -> where its server was last heard, of all servers of the mesh."""
        return known_members(self.marker)

    @property
    def local_url(self) -> str:
        """Where the server listens, if it runs."""
        return f"nats://{LOOPBACK}:{self.marker.client_port}"


def read_hosted(path: Path) -> HostedBus:
    """Read the data directory `path`; changes nothing. Raises: NotFound when it holds no bus server, CannotStart."""
    path = path.expanduser().absolute()
    marker = read_marker(path / data_folder.BUS)
    if marker is None:
        raise NotFound(f"{path} holds no bus server; name the data directory of a node that ran one with --data")
    stored = read_stored(path / data_folder.IDENTITY) or {}
    mesh = MeshIdentity(**stored["mesh"]) if stored.get("mesh") else None
    if mesh is None or mesh.id != marker.mesh_id:
        mesh = MeshIdentity(marker.mesh_id, marker.mesh_id, 0.0, "")
    return HostedBus(path, mesh, marker, _used_by(path))


def _used_by(path: Path) -> str:
    try:
        with open(path / data_folder.LOCK, encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return lock.read(20).strip() or "unknown"
    except OSError:
        pass  # nobody has ever run on it, or it can't be read: `open_data_dir` says so
    return ""


def describe(hosted: HostedBus) -> list[str]:
    """What a person should know who finds no node that answers: sentences. Pure."""
    others = [
        f"{node} (last at {', '.join(dict.fromkeys(host for host, _ in routes))})" if routes else node
        for node, routes in hosted.members.items()
        if node != host_of(hosted.marker.server_name)
    ]
    total = max(1 + len(others), len(hosted.marker.peers) + 1 if not others else 0)
    found = [
        f"{hosted.path} holds a bus server of the mesh {hosted.mesh.name} ({hosted.mesh.id}), one of {total}"
        + (f"; the others are those of {', '.join(others)}." if others else ".")
    ]
    if hosted.used_by:
        found.append(f"A node runs on it (pid {hosted.used_by}), whose API has another address: name it with --url.")
    else:
        found.append(f"No node runs on it; start it: python -m node --data {shlex.quote(str(hosted.path))}")
    if total > 1:
        found.append(
            f"{total // 2 + 1} of the {total} bus servers must run. Only if the others are lost for good: "
            f"{hosted.rescue_command}"
        )
    return found


@contextlib.asynccontextmanager
async def connected(hosted: HostedBus, addresses: tuple[str, ...]) -> AsyncGenerator[tuple[Bus, Bus]]:
    """(a connection to the system account of the bus, one to the mesh's own)

    Starts the server for as long as this lasts where no node runs on the directory; it is stopped afterwards.
    `addresses`: of this machine, on which other servers are listened for. Raises: CannotStart, BusUnavailable.
    """
    from mesh.bus.client import Bus

    async with contextlib.AsyncExitStack() as undo:
        if not hosted.used_by:
            server = await _start(hosted, undo)
            await _introduce(server, hosted, addresses)
        login = {"user": SYSTEM_USER, "password": system_password(hosted.mesh.id)}
        system = await Bus.connect((hosted.local_url,), name="queztl bus", **login)
        undo.push_async_callback(system.close)
        bus = await Bus.connect((hosted.local_url,), name="queztl bus")
        undo.push_async_callback(bus.close)
        yield system, bus


async def _start(hosted: HostedBus, undo: contextlib.AsyncExitStack) -> BusServer:
    """The server of the directory, on loopback and on its own port."""
    data = open_data_dir(hosted.path)
    undo.callback(data.close)
    settings = BusSettings(
        mesh_id=hosted.mesh.id,
        mesh_name=hosted.mesh.name,
        node_id=host_of(hosted.marker.server_name),
        system_password=system_password(hosted.mesh.id),
        bind_host=LOOPBACK,
        client_port=hosted.marker.client_port,
        client_port_required=True,
    )
    server = BusServer(data.bus_folder, settings, lambda *_: None)
    undo.push_async_callback(server.stop)
    await server.start()
    return server


async def _introduce(server: BusServer, hosted: HostedBus, addresses: tuple[str, ...]) -> None:
    """Give the server the routes that the other members announce, and time to connect to them."""
    discovery = Discovery(addresses)
    await discovery.start()
    try:
        await asyncio.sleep(LISTEN_S)
        known = set(hosted.marker.others) or None
        heard = announced_routes(discovery.peers(), hosted.mesh.id, known)
    finally:
        await discovery.stop()
    if heard:
        await server.set_peers(join_routes(server.peers, *heard.values(), own=server.routes))
        await asyncio.sleep(LISTEN_S)
