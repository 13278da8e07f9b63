"""The errors that aiohttp answers below the application, in the one error format: requests it can't parse.

Such an answer passes no middleware. aiohttp would send plain text and its version.
"""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from api.documents.errors import excerpt
from api.http.errors import http_error

log = logging.getLogger(__name__)
SERVER_NAME = "queztl"


class _Protocol(RequestHandler):
    """A connection."""

    __slots__ = ()

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
            response = http_error(status, "bad_request", f"The request can't be parsed: {excerpt(reason, 200)}")
        else:
            log.error("a request from %s failed: %r", request.remote, exc, exc_info=exc)
            response = http_error(status, "internal", "Something went wrong in this node; its log has the details")
        response.headers["Server"] = SERVER_NAME
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs the application; `handle_error` of its connections is the one above."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, **made._kwargs)


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
