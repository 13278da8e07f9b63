"""Keeps the routes of this node's bus server true: by what other nodes announce, and by `--join`.

The mesh itself has the routes (KV `mesh`), but can't be asked without a majority of its servers, and its records are
then as old as the last majority.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mesh import node_api
from mesh.bus.server.data_dir import Member
from mesh.bus.server.introduction import routes_of
from mesh.bus.server.supervisor import BusServer
from mesh.cluster.routes import announced_routes, join_routes
from mesh.coordination import ServerRecord
from mesh.discovery.announcement import Announcement
from mesh.errors import QueztlError
from mesh.membership.connections import system_password
from mesh.node_api import API_SCHEMES, BUS_SCHEMES
from mesh.subjects import host_of

ASK_WITHIN_S = 2.0


@dataclass(frozen=True)
class PeerRoutes:
    """Where the other servers of the mesh `mesh_id` are. `peers()` returns the current announcements."""

    mesh_id: str
    peers: Callable[[], Iterable[Announcement]]
    join: Sequence[str] = ()
    """The addresses of `--join`."""

    async def follow(self, server: BusServer, records: Iterable[ServerRecord]) -> None:
        """Use the routes in the `records` of the mesh, and newer ones that their nodes announce."""
        node = host_of(server.name)
        others = [record for record in records if record.node != node]
        heard = announced_routes(self.peers(), self.mesh_id, {record.node for record in others})
        routes = join_routes(*(record.routes for record in others), *heard.values(), own=server.routes)
        await server.set_peers(routes, [Member(record.name, record.routes) for record in others])

    async def find(self, server: BusServer) -> frozenset[str]:
        """Use remembered, announced and given routes, while the mesh can't be asked; the nodes that were heard."""
        known = {host_of(member.name) for member in server.members}
        heard = announced_routes(self.peers(), self.mesh_id, known or None)
        remembered = [member.routes for member in server.members] or [server.peers]
        given = await self.given_urls()
        asked = (await routes_of(given, self.mesh_id, system_password(self.mesh_id))).values() if given else ()
        routes = join_routes(*remembered, *heard.values(), asked, own=server.routes)
        if set(routes) != set(server.peers):
            await server.set_peers(routes)
        return frozenset(heard) - {host_of(server.name)}

    async def given_urls(self) -> list[str]:
        """The URLs of the bus behind `--join`, of this mesh where a node's API says so."""
        urls = [url for url in self.join if url.startswith(BUS_SCHEMES)]
        for api in (url for url in self.join if url.startswith(API_SCHEMES)):
            try:
                document = await node_api.network_status(api, timeout_s=ASK_WITHIN_S)
            except QueztlError:
                continue
            if document.get("mesh_id") == self.mesh_id:
                urls += map(str, document["bus"]["urls"])
        return urls
