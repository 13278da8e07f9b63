"""The typed keys of the application's state, and its settings."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from api.http.auth import Guard
from api.http.route import Route
from api.services.node import Services
from mesh.config import MIB


@dataclass(frozen=True)
class ApiSettings:
    """The settings of the bridge. The unit comes last in a name."""

    open_api: bool = False
    """Answer all requests of other machines, although the mesh has no key."""
    extra_hosts: tuple[str, ...] = ()
    """Further `name:port` that clients may use for this node: of a proxy, of a forwarded port."""
    max_body_bytes: int = 4 * MIB
    """Largest JSON or MessagePack body, decoded; larger data is uploaded as a blob."""
    max_blob_bytes: int = 0
    """Largest blob; 0: as large as the bus can store."""
    max_decoded_bytes: int = 64 * MIB
    """Largest blob that is uploaded with a Content-Encoding, decoded: a small upload can't fill the store."""
    max_wait_s: float = 60.0
    """Longest `?wait=` of a submission."""
    event_ping_s: float = 15.0
    """An event stream without changes sends a comment this often."""
    access_log: bool = False
    """Log a line for each request."""
    shutdown_s: float = 5.0
    """How long running requests may take once the bridge closes."""
    advertise_host: str = ""
    """The host in the bridge's own URL, when it listens on every address."""
    version: str = "0.1.0"
    """The version of Queztl, for the OpenAPI document."""


SERVICES = web.AppKey("services", Services)
SETTINGS = web.AppKey("settings", ApiSettings)
GUARD = web.AppKey("guard", Guard)
ROUTES = web.AppKey("routes", tuple[Route, ...])
#: Set when the bridge closes: long answers end then.
CLOSING = web.AppKey("closing", asyncio.Event)
