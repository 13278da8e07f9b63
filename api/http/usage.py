"""What the bridge uses of its limits: connections, memory for bodies, event streams.

A connection either waits for a request or serves one. At the limit the one that waits longest is closed for a new one,
so idle connections keep nobody out; when all serve requests, the new one is refused. A client that sends no request in
time, or does not read its answer, is disconnected.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from mesh.errors import Busy
from mesh.limits import Limits, alarms

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 1.0
#: The first request of a connection is complete within this time, or the connection is closed, seconds.
FIRST_REQUEST_S = 15.0
#: A connection that waits for its next request for so long is closed, seconds.
KEEP_ALIVE_S = 75.0
#: A client that reads nothing of its answer for so long is disconnected, seconds.
UNREAD_S = 60.0
#: Refused connections that wait for their request, in order to answer it, at most.
REFUSED = 64
REFUSED_S = 2.0
_BODY = web.RequestKey("body bytes in memory", int)


class Usage:
    """The levels of one bridge."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.event_streams = self.body_memory_bytes = 0
        # In the order in which they began to wait.
        self._waiting: dict[RequestHandler, float] = {}
        self._serving: set[RequestHandler] = set()
        self._fresh: set[RequestHandler] = set()
        self._unread_since: dict[RequestHandler, float] = {}
        self.refused = 0
        """Refused connections that are still open."""

    def levels(self) -> dict[str, int]:
        """limit -> how much of it is in use."""
        return {
            "connections": len(self._waiting) + len(self._serving),
            "body_memory_bytes": self.body_memory_bytes,
            "event_streams": self.event_streams,
        }

    # --- connections --------------------------------------------------------------------------------
    def opened(self, connection: RequestHandler) -> bool:
        """Count a new connection; False when it must be refused."""
        if len(self._waiting) + len(self._serving) >= self.limits.connections and not self._close_longest_waiting():
            return False
        self._waiting[connection] = monotonic()
        self._fresh.add(connection)
        return True

    def began(self, connection: RequestHandler) -> None:
        """It serves a request from now on."""
        if self._waiting.pop(connection, None) is not None:
            self._serving.add(connection)
            self._fresh.discard(connection)

    def ended(self, connection: RequestHandler) -> None:
        """It waits for a request again."""
        if connection in self._serving:
            self._serving.remove(connection)
            self._waiting[connection] = monotonic()

    def closed(self, connection: RequestHandler) -> None:
        """It is no longer open."""
        self._waiting.pop(connection, None)
        self._serving.discard(connection)
        self._fresh.discard(connection)
        self._unread_since.pop(connection, None)

    def read_on(self, connection: RequestHandler) -> None:
        """The client has read a part of its answer."""
        self._unread_since.pop(connection, None)

    def _close_longest_waiting(self) -> bool:
        for connection in self._waiting:
            if not _unread_bytes(connection):
                self.closed(connection)
                connection.force_close()
                return True
        return False

    async def sweep(self) -> None:
        """Close overdue connections, and log each alarm once when it is raised, until cancelled."""
        raised: dict[str, str] = {}
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self._sweep(monotonic())
            found = alarms(self.levels(), self.limits)
            for name in found.keys() - raised.keys():
                log.warning("alarm: %s", found[name])
            raised = found

    def _sweep(self, now: float) -> None:
        for connection in [*self._waiting, *self._serving]:
            if not _unread_bytes(connection):
                self._unread_since.pop(connection, None)
                waits_since = self._waiting.get(connection)
                limit_s = FIRST_REQUEST_S if connection in self._fresh else KEEP_ALIVE_S
                if waits_since is not None and now - waits_since > limit_s:
                    connection.force_close()
            elif now - self._unread_since.setdefault(connection, now) > UNREAD_S and connection.transport:
                log.debug("a client did not read its answer for %g s and is disconnected", UNREAD_S)
                connection.transport.abort()

    # --- requests -----------------------------------------------------------------------------------
    @contextmanager
    def request(self, request: web.Request) -> Generator[None]:
        """While a request is handled. Its body counts until then, because its decoded form lives as long."""
        connection = request.protocol
        self.began(connection)
        try:
            yield
        finally:
            self.ended(connection)
            self.body_memory_bytes -= request.get(_BODY, 0)

    def hold_body(self, request: web.Request, size_bytes: int) -> None:
        """Count so many more bytes of its body. Raises: Busy at the limit."""
        if self.body_memory_bytes + size_bytes > self.limits.body_memory_bytes:
            raise Busy("this node reads as many large requests as it has memory for; try again shortly")
        self.body_memory_bytes += size_bytes
        request[_BODY] = request.get(_BODY, 0) + size_bytes

    @contextmanager
    def event_stream(self) -> Generator[None]:
        """While an event stream is served. Raises: Busy at the limit."""
        if self.event_streams >= self.limits.event_streams:
            raise Busy("this node serves as many event streams as it may; try again later, or at another node")
        self.event_streams += 1
        try:
            yield
        finally:
            self.event_streams -= 1


def _unread_bytes(connection: RequestHandler) -> int:
    return connection.transport.get_write_buffer_size() if connection.transport is not None else 0
