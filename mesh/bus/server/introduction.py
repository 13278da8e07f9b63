"""Asks bus servers, over their client ports, whether they belong to a mesh and where other servers reach them.

A remembered address may belong to another machine by now, and so to another mesh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from mesh.bus.server.bootstrap_client import Admin, AdminError
from mesh.bus.server.config import SYSTEM_USER
from mesh.bus.server.data_dir import Route

ANSWER_WITHIN_S = 2.0


async def routes_of(urls: Iterable[str], mesh_id: str, password: str) -> dict[str, Route]:
    """Client URL -> route of its server, for those that belong to the mesh `mesh_id`; the first to answer first.

    `password`: of the system account, which only the servers of that mesh accept. Takes `ANSWER_WITHIN_S` at most.
    """
    found: dict[str, Route] = {}

    async def ask(url: str) -> None:
        route = await _route_at(url, mesh_id, password)
        if route is not None:
            found[url] = route

    await asyncio.gather(*(ask(url) for url in dict.fromkeys(urls)))
    return found


async def _route_at(url: str, mesh_id: str, password: str) -> Route | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if not host or not port:
            return None
        async with asyncio.timeout(ANSWER_WITHIN_S):
            admin = await Admin.open(host, port, SYSTEM_USER, password)
            try:
                cluster = (await admin.request(f"$SYS.REQ.SERVER.{admin.server_id}.VARZ", {}))["data"]["cluster"]
            finally:
                await admin.close()
        return (host, int(cluster["cluster_port"])) if cluster["name"] == mesh_id else None
    except (AdminError, OSError, ValueError, KeyError, TypeError):  # a TimeoutError is an OSError
        return None
