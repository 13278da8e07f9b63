"""From the settings and ports of a bus to the configuration of each of its servers. Pure.

The routes are decided here. A server has the servers of the other nodes as routes. A lone server has itself, because
nats-server requires a route in a cluster configuration. During bootstrap, `bootstrap.py` has the boot peer alone.

Every server has a witness, whatever its peers, because Raft starts only once another server is connected. Without a
witness, `queztl bus rescue` could not help the last of three servers after a restart, and a server that became the only
member just before it died would never serve again. The witness is a leaf node, not a route. nats-server counts a route
to a server without JetStream as a member; a group that starts while some members are absent then lowers its size
("mixed mode"): three to two, and five to three, where two of five are a quorum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mesh.bus.server.config import SYSTEM_USER, VOTER_TAG, ServerConfig, client_urls, local_host, render_witness
from mesh.bus.server.data_dir import BusMarker

LOOPBACK = "127.0.0.1"
_BOOT_STORE_BYTES = 64 * 1024**2
#: The server's own limit for all streams together, whatever the size of the disk. Every stream has a limit that follows
#: the free disk of the node that created the mesh, and a server with a smaller disk must be able to take the replicas.
STORE_BYTES = 1 << 50


@dataclass(frozen=True)
class BusSettings:
    """What a bus server needs to know."""

    mesh_id: str
    mesh_name: str
    node_id: str
    system_password: str
    """For the system account, and between servers."""
    bind_host: str = "0.0.0.0"
    """Where clients and servers connect; "127.0.0.1" keeps everything on this machine."""
    advertise: tuple[str, ...] = ()
    """Addresses of this machine that others may use; empty: `bind_host`."""
    client_port: int = 4222
    """Preferred; an existing bus prefers the port it had."""
    client_port_required: bool = False
    """Whether to refuse to start rather than take another port."""
    store_max_bytes: int = STORE_BYTES
    """What all streams together may take on disk."""
    sync_interval_s: float = 1.0
    """How often the server writes through to the disk."""
    ready_timeout_s: float = 60.0
    """How long a restarted server may take to read its store."""
    max_connections: int = 0
    """How many clients the server accepts; 0: as many as it does by itself."""
    own_group: bool = True
    """Whether the servers get a process group of their own, so that Ctrl-C reaches the node and not them."""


@dataclass(frozen=True)
class BusAddress:
    """How to reach a bus. `user` is empty on a mesh without a key: clients need none."""

    client_urls: tuple[str, ...]
    local_url: str
    system_user: str
    system_password: str
    server_name: str
    user: str = ""
    password: str = ""


@dataclass(frozen=True)
class Layout:
    """The configurations of the servers in `folder`."""

    folder: Path
    settings: BusSettings

    def server(self, marker: BusMarker) -> ServerConfig:
        """The one with the streams."""
        settings = self.settings
        return ServerConfig(
            name=marker.server_name,
            cluster=marker.mesh_id,
            host=settings.bind_host,
            client_port=marker.client_port,
            cluster_host=settings.bind_host,
            cluster_port=marker.cluster_port,
            routes=marker.peers or ((local_host(settings.bind_host), marker.cluster_port),),
            password=settings.system_password,
            log_file=self.folder / "server.log",
            store=self.folder / "store",
            store_max_bytes=settings.store_max_bytes,
            sync_interval_s=settings.sync_interval_s,
            tags=(VOTER_TAG,),
            client_advertise=settings.advertise[0] if settings.advertise else "",
            witness_port=marker.witness_port,
            max_connections=settings.max_connections,
        )

    def newcomer(self, marker: BusMarker) -> ServerConfig:
        """The server while it joins those at `marker.peers`.

        How many members a fresh server waits for before it votes is the number of its routes and itself. Two that
        lead nowhere make that four at least: so two newcomers that meet are no majority, and can't found a group of
        their own, whose empty catalogue would wipe every stream of the old one.
        """
        nowhere = ((LOOPBACK, 1), (LOOPBACK, 2))
        return replace(self.server(marker), routes=(*marker.peers, *nowhere))

    def witness(self, marker: BusMarker) -> str:
        """The text of the witness's configuration file."""
        name, port = f"{marker.server_name}-witness", marker.witness_port
        return render_witness(name, port, self.settings.system_password, self.folder / "witness.log")

    def boot(self, marker: BusMarker, cluster_port: int) -> ServerConfig:
        """The temporary peer of the creation: it has no voter tag, so no stream is ever placed on it."""
        return ServerConfig(
            name=f"{marker.server_name}-boot",
            cluster=marker.mesh_id,
            host=LOOPBACK,
            client_port=-1,
            cluster_host=LOOPBACK,
            cluster_port=cluster_port,
            routes=((local_host(self.settings.bind_host), marker.cluster_port),),
            password=self.settings.system_password,
            log_file=self.folder / "boot.log",
            store=self.folder / "boot",
            store_max_bytes=_BOOT_STORE_BYTES,
            hidden=True,
        )

    def address(self, marker: BusMarker) -> BusAddress:
        """Where clients find the server."""
        host = self.settings.bind_host
        return BusAddress(
            client_urls=client_urls(host, self.settings.advertise, marker.client_port),
            local_url=client_urls(host, (), marker.client_port)[0],
            system_user=SYSTEM_USER,
            system_password=self.settings.system_password,
            server_name=marker.server_name,
        )
