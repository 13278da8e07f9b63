"""Start and stop the HTTP server of the bridge."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiohttp import web

from api.http.auth import is_loopback
from api.http.keys import GUARD, SETTINGS, USAGE
from api.http.protocol import Runner
from mesh.errors import CannotStart

_WILDCARDS = ("0.0.0.0", "::", "")


@dataclass
class Running:
    """A listening bridge."""

    host: str
    port: int
    url: str
    """http://host:port, for other machines."""
    levels: Callable[[], dict[str, int]]
    """limit -> how much of it the bridge uses."""
    _runner: web.AppRunner

    async def close(self) -> None:
        """Stop listening, end long answers, and let the others finish within `shutdown_s`."""
        await self._runner.cleanup()


async def serve(app: web.Application, host: str = "127.0.0.1", port: int = 8000) -> Running:
    """Listen on `host`:`port` (0: a free port). Raises: CannotStart, with what to do."""
    settings = app[SETTINGS]
    # One address, so that port 0 means one port; browsers that try ::1 first fall back at once.
    host = "127.0.0.1" if host.lower() == "localhost" else host
    runner = Runner(
        app,
        auto_decompress=False,  # see api.http.encodings
        access_log=web.access_logger if settings.access_log else None,
        handle_signals=False,
        shutdown_timeout=settings.shutdown_s,
        max_line_size=settings.limits.header_bytes,
        max_field_size=settings.limits.header_bytes,
        max_headers=settings.limits.headers,
    )
    guard = app[GUARD]
    # Before the server listens: the first request must already meet the right rules.
    guard.trust = replace(guard.trust, port=port, loopback_only=is_loopback(host))
    await runner.setup()
    try:
        site = web.TCPSite(runner, host or None, port, backlog=512)
        await site.start()
        bound = runner.addresses[0][1]
    except (OSError, OverflowError) as error:
        await runner.cleanup()
        raise CannotStart(_why(error, host, port)) from None
    guard.trust = replace(guard.trust, port=bound)
    return Running(host, bound, _url(settings.advertise_host or host, bound), app[USAGE].levels, runner)


def _why(error: OSError | OverflowError, host: str, port: int) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"The API's port {port} is in use; give this node another one with --api HOST:PORT."
    if number == errno.EACCES:
        return f"Port {port} needs more rights than this user has; give the API another with --api HOST:PORT."
    if number == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        return f"{host} is not an address of this machine; give the API another with --api HOST:PORT."
    return f"The API can't listen on {host}:{port} ({error}); give it another address with --api HOST:PORT."


def _url(host: str, port: int) -> str:
    """The URL of a listening address; for a wildcard address that of loopback."""
    shown = "127.0.0.1" if host in _WILDCARDS else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
