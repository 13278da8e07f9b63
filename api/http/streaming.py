"""Answers that are bytes: streamed, never whole in memory, whole or in part, and never run by a browser."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from api.http.errors import http_error
from mesh.errors import QueztlError
from mesh.media_types import OCTETS, extension

log = logging.getLogger(__name__)

_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}(?:\s*;[ -~]{0,200})?")
_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})", re.ASCII | re.IGNORECASE)


def clean_type(content_type: str) -> str:
    """`content_type` if it is well formed, else application/octet-stream."""
    return content_type if _TYPE.fullmatch(content_type) else OCTETS


@dataclass(frozen=True)
class Content:
    """Bytes that never change under their name."""

    name: str
    """An id of letters, digits, '_' and '-': it makes the file name, and the entity tag."""
    content_type: str
    size_bytes: int
    whole: AsyncIterator[bytes]
    part: Callable[[int, int], Awaitable[AsyncIterator[bytes]]]
    """(start, length) -> those bytes"""

    @property
    def etag(self) -> str:
        """The entity tag, a strong one."""
        return f'"{self.name}"'

    @property
    def headers(self) -> dict[str, str]:
        """Its headers. An HTML page among uploaded bytes must not act as a page of this node."""
        plain = clean_type(self.content_type)
        return {
            "Content-Type": plain,
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Content-Disposition": f'inline; filename="{self.name}{extension(plain)}"',
            "ETag": self.etag,
            "Accept-Ranges": "bytes",
            "Cache-Control": "private, no-cache",
        }


def requested_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """(first byte, number of bytes) of a Range header; None for the whole. Pure.

    The whole is the answer to what is no valid range, and to several ranges. Raises: ValueError when no byte is in it.
    """
    match = _RANGE.fullmatch(header.strip())
    if not match or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size_bytes)
        start = size_bytes - length
    else:
        start = int(first)
        if last and int(last) < start:
            return None  # not a range
        length = min(int(last or size_bytes), size_bytes - 1) - start + 1
    if length <= 0:
        raise ValueError("no byte is in that range")
    return start, length


def is_known(request: web.Request, etag: str) -> bool:
    """Whether the client has these bytes already (If-None-Match). Pure."""
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")]
    return etag in tags or "*" in tags


async def send(request: web.Request, content: Content) -> web.StreamResponse:
    """Send the content, or the part that the request asks for; 304 when the client has it, 416 for an empty range.

    When its chunks fail midway the connection is cut, so that the client sees an incomplete answer.
    """
    headers, size_bytes = content.headers, content.size_bytes
    if is_known(request, content.etag):
        return web.Response(status=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})
    status, chunks, length = 200, content.whole, size_bytes
    if request.method == "GET" and request.headers.get("If-Range", content.etag) == content.etag:
        try:
            part = requested_range(request.headers.get("Range", ""), size_bytes)
        except ValueError:
            message = f"The range has none of the {size_bytes} bytes."
            return http_error(416, "no_such_range", message, {"Content-Range": f"bytes */{size_bytes}"})
        if part is not None:
            start, length = part
            status, chunks = 206, await content.part(start, length)
            headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{size_bytes}"
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = length
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    # Read the first chunk before the headers are sent: a missing blob is still a proper error then.
    first = await anext(chunks, b"")
    await response.prepare(request)
    try:
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    except QueztlError as error:
        log.warning("the answer to %s was cut: %s", request.path, error.message)
        if request.transport is not None:
            request.transport.abort()
    return response
