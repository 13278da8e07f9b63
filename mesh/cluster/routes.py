"""Where the other bus servers of this mesh are, from what is remembered and what is heard. Pure.

Remembered addresses grow stale: a router hands out another subnet, virtual machines get new addresses. An announcement
is used only for a server of the same mesh on a node that is known to run one. The servers check the mesh's id and
password themselves, so an address that by now belongs to another mesh is only refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mesh.bus.server.data_dir import Route
from mesh.discovery.announcement import MEMBER, Announcement


def announced_routes(
    peers: Iterable[Announcement], mesh_id: str, known: Collection[str] | None = None
) -> dict[str, tuple[Route, ...]]:
    """Node id -> the routes that it announces for its server of the mesh `mesh_id`.

    `known`: ids of the nodes that run a server; None, where they are not known (a data directory of an earlier
    version): every node of the mesh.
    """
    return {
        peer.node_id: peer.routes
        for peer in peers
        if peer.mesh_id == mesh_id and peer.routes and (known is None or peer.node_id in known)
    }


def join_routes(*lists: Iterable[Route], own: Iterable[Route] = ()) -> tuple[Route, ...]:
    """All routes, each once, in the order of the lists, without those of this node's `own` server."""
    left_out = frozenset(own)
    return tuple(dict.fromkeys(route for routes in lists for route in routes if route not in left_out))


def member_urls(peers: Iterable[Announcement], mesh_id: str) -> list[str]:
    """The URLs of the bus that nodes announce which have joined the mesh `mesh_id`."""
    urls = (url for peer in peers if peer.mesh_id == mesh_id and peer.role == MEMBER for url in peer.urls)
    return list(dict.fromkeys(urls))
