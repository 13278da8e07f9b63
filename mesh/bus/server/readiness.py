"""Whether a bus server that was started is ready: asked of the server itself."""

from __future__ import annotations

import asyncio

from mesh.bus.server.bootstrap import MetaGroup, meta_group, until_exit
from mesh.bus.server.bootstrap_client import Admin, AdminError
from mesh.bus.server.config import SYSTEM_USER, local_host
from mesh.bus.server.data_dir import BusMarker
from mesh.bus.server.layout import BusSettings
from mesh.bus.server.process import ServerProcess
from mesh.errors import CannotStart

#: Without a meta leader no answer comes at all: a short timeout and another request find a new leader sooner.
_REPLY_S = 0.05
_POLL_S = 0.01


def needs_peers(group: MetaGroup | None) -> bool:
    """Whether the server is one of several members, so that it serves only once a majority is connected. Pure.

    The group decides, not the peers in the data directory: a crash between two steps leaves them different.
    """
    return group is not None and group.size > 1


async def until_ready(server: ServerProcess, settings: BusSettings, marker: BusMarker, restarted: bool = False) -> None:
    """Return once the JetStream API answers, or for a `restarted` server that waits for its peers.

    Raises: CannotStart when the server exits or takes too long.
    """
    access = (local_host(settings.bind_host), marker.client_port, settings.system_password)
    try:
        async with asyncio.timeout(settings.ready_timeout_s):
            while not await is_ready(*access, restarted):
                await until_exit(_POLL_S, server)
    except TimeoutError:
        raise CannotStart(
            f"the bus server did not come back within {settings.ready_timeout_s:g} s; its log: {server.last_words()}"
        ) from None


async def is_ready(host: str, port: int, password: str, restarted: bool) -> bool:
    """Whether the JetStream API answers there; for a `restarted` server also whether it waits for its peers."""
    try:
        system = await Admin.open(host, port, SYSTEM_USER, password)
        try:
            own = f"$SYS.REQ.SERVER.{system.server_id}"
            if restarted and needs_peers(meta_group(await system.request(f"{own}.JSZ", {}))):
                return True
            if not await _serves(host, port):
                return False
            # STATSZ makes the server record its own capacity, which otherwise happens 250 ms after its start. Until
            # then it refuses to create streams: "no suitable peers for placement, peer offline".
            await system.request(f"{own}.STATSZ", {})
            return True
        finally:
            await system.close()
    except (AdminError, OSError):  # a TimeoutError is an OSError
        return False


async def _serves(host: str, port: int) -> bool:
    """Whether the JetStream API answers there, with a meta leader behind it."""
    admin = await Admin.open(host, port)
    try:
        return "error" not in await admin.request("$JS.API.INFO", timeout_s=_REPLY_S)
    finally:
        await admin.close()
