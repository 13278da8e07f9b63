"""The connections of the bridge: they are counted, and refused beyond their limit.

The errors that aiohttp answers below the application (a request that it can't parse) are in the one error format: such
an answer passes no middleware, and aiohttp would send plain text and its version.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from api.documents.errors import excerpt
from api.http.errors import http_error
from api.http.keys import USAGE
from api.http.usage import REFUSED, REFUSED_S, Usage

log = logging.getLogger(__name__)
SERVER_NAME = "queztl"


class _Protocol(RequestHandler):
    """A connection."""

    __slots__ = ("_is_refused", "_usage")

    def __init__(self, server: web.Server, usage: Usage, **options: Any) -> None:
        super().__init__(server, **options)
        self._usage, self._is_refused = usage, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        usage = self._usage
        if usage.opened(self):
            super().connection_made(transport)
        elif usage.refused < REFUSED:
            # The 503 is sent when the request is there: a client that still sends does not read it.
            self._is_refused = True
            self.transport = transport  # pyrefly: ignore[bad-assignment]  # that of a server; uvloop's has no such base
            usage.refused += 1
            self._loop.call_later(REFUSED_S, transport.close)
        else:
            transport.abort()  # pyrefly: ignore[missing-attribute]  # as above

    def data_received(self, data: bytes) -> None:
        if not self._is_refused:
            super().data_received(data)
        elif self.transport is not None:
            self.transport.write(_NO_ROOM)
            self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._usage.closed(self)
        if self._is_refused:
            self._usage.refused -= 1
            self.transport = None
        else:
            super().connection_lost(exc)

    def resume_writing(self) -> None:
        self._usage.read_on(self)
        super().resume_writing()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to a request that can't be parsed, or whose answer failed; the connection closes after it."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent")
        if status < 500:
            log.debug("a request from %s can't be parsed: %s", request.remote, message)
            # The parser goes on to quote the bytes, over several lines.
            reason = (message or "").strip().partition("\n")[0].rstrip(" :.")
            if isinstance(exc, LineTooLong) or reason.startswith("Too many headers"):
                response = http_error(431, "headers_too_large", f"The headers are too large: {excerpt(reason, 200)}")
            else:
                response = http_error(status, "bad_request", f"The request can't be parsed: {excerpt(reason, 200)}")
        else:
            log.error("a request from %s failed: %r", request.remote, exc, exc_info=exc)
            response = http_error(status, "internal", "Something went wrong in this node; its log has the details")
        response.headers["Server"] = SERVER_NAME
        response.force_close()
        return response


def _no_room() -> bytes:
    answer = http_error(503, "busy", "This node has as many connections as it can serve; try again shortly")
    body = answer.body if isinstance(answer.body, bytes) else b""
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 2\r\nServer: {SERVER_NAME}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


_NO_ROOM = _no_room()


class _Server(web.Server):
    usage: Usage

    def __call__(self) -> RequestHandler:
        return _Protocol(self, self.usage, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the application; `handle_error` of its connections is the one above."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(made.request_handler, request_factory=made.request_factory, **made._kwargs)
        server.usage = self.app[USAGE]
        return server


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Answers the header Expect, which aiohttp reads before the middlewares run."""
    header = request.headers.get("Expect", "")
    if header.lower() != "100-continue":
        return http_error(417, "expectation_failed", f"Expect: {excerpt(header, 40)} is not known here")
    if request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The interim answer is no part of the answer.
        request.writer.output_size = 0
    return None
