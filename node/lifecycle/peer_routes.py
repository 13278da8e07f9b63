"""Keeps the routes of this node's bus server true: by what other nodes announce, and by `--join`.

The mesh itself has the routes (KV `mesh`), but can't be asked without a majority of its servers, and its records are
then as old as the last majority.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mesh import node_api
from mesh.bus.server.data_dir import Member, Route
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
        """Use the routes in the `records` of the mesh, and in their place those that their nodes announce."""
        node = host_of(server.name)
        recorded = [Member(record.name, record.routes) for record in records if record.node != node]
        members, _ = self._where(recorded)
        await server.set_peers(join_routes(*(member.routes for member in members), own=server.routes), members)

    async def find(self, server: BusServer, ask: bool = True) -> frozenset[str]:
        """Use remembered and announced routes, while the mesh can't be asked; returns the nodes that were heard.

        `ask`: also the routes of the servers behind `--join`, which takes up to `ASK_WITHIN_S`.
        """
        members, heard = self._where(server.members)
        routes = [member.routes for member in members]
        if not members:  # a data directory of an earlier version: nobody knows which server was at which address
            routes = [server.peers, *heard.values()]
        given = await self.given_urls() if ask else []
        asked = (await routes_of(given, self.mesh_id, system_password(self.mesh_id))).values() if given else ()
        found = join_routes(*routes, asked, own=server.routes)
        if set(found) != set(server.peers) or tuple(members) != server.members:
            await server.set_peers(found, members)
        return frozenset(heard) - {host_of(server.name)}

    def _where(self, members: Iterable[Member]) -> tuple[list[Member], dict[str, tuple[Route, ...]]]:
        """(the members where their nodes announce them now, else where they were; node -> what it announces)

        A route is replaced, not added to: while nats-server takes an old connection to the same server for alive, it
        dials another address once and then never again. Without the old address it drops that connection.
        """
        members = list(members)
        known = {host_of(member.name) for member in members}
        heard = announced_routes(self.peers(), self.mesh_id, known or None)
        moved = [Member(member.name, heard.get(host_of(member.name), member.routes)) for member in members]
        return moved, heard

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
