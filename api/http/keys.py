"""The typed keys of the application's state, and its settings."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

from api.http.auth import Guard
from api.http.route import Route
from api.http.usage import Usage
from api.services.node import Services
from mesh.limits import Limits


@dataclass(frozen=True)
class ApiSettings:
    """The settings of the bridge. The unit comes last in a name."""

    open_api: bool = False
    """Answer all requests of other machines, although the mesh has no key."""
    extra_hosts: tuple[str, ...] = ()
    """Further `name:port` that clients may use for this node: of a proxy, of a forwarded port."""
    limits: Limits = field(default_factory=Limits)
    """How much is accepted at the same time, and in one request."""
    max_blob_bytes: int = 0
    """Largest blob; 0: as large as the bus can store."""
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
USAGE = web.AppKey("usage", Usage)
#: Set when the bridge closes: long answers end then.
CLOSING = web.AppKey("closing", asyncio.Event)
