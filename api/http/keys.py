"""What the application holds, under typed keys, and the settings it was built with."""

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
    """How the bridge behaves. Units last in the name."""

    open_api: bool = False
    """Answer everything to everybody although it listens off loopback and there is no key."""
    extra_hosts: tuple[str, ...] = ()
    """Further `name:port` that clients may call this node by: a proxy's, a forwarded port's."""
    max_body_bytes: int = 4 * MIB
    """Largest JSON or MessagePack body; larger data goes up as a blob."""
    max_blob_bytes: int = 0
    """Largest blob; 0: as large as the bus has room for."""
    max_wait_s: float = 60.0
    """Longest `?wait=` of a submit."""
    event_ping_s: float = 15.0
    """A quiet event stream says this often that it is alive."""
    access_log: bool = False
    """Log one line a request."""
    shutdown_s: float = 5.0
    """How long requests that run may take once the bridge was told to stop."""
    advertise_host: str = ""
    """The host in the bridge's own URL, when it listens on every address."""
    version: str = "0.1.0"
    """The version of this program, for the OpenAPI document."""


SERVICES = web.AppKey("services", Services)
SETTINGS = web.AppKey("settings", ApiSettings)
GUARD = web.AppKey("guard", Guard)
ROUTES = web.AppKey("routes", tuple[Route, ...])
#: Set when the bridge is told to stop: long answers end then.
CLOSING = web.AppKey("closing", asyncio.Event)
