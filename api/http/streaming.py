"""Answers that are bytes: streamed, never whole in memory, and never run by a browser."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator

from aiohttp import web

from mesh.errors import QueztlError

log = logging.getLogger(__name__)

OCTETS = "application/octet-stream"
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}/[A-Za-z0-9!#$&^_.+-]{1,100}(?:\s*;[ -~]{0,200})?")


def clean_type(content_type: str) -> str:
    """`content_type` if it is well formed, else application/octet-stream."""
    return content_type if _TYPE.fullmatch(content_type) else OCTETS


def headers(content_type: str) -> dict[str, str]:
    """Headers of uploaded bytes: an HTML page among them must not act as a page of this node."""
    return {"Content-Type": clean_type(content_type), "Content-Security-Policy": "default-src 'none'; sandbox"}


async def send(
    request: web.Request, chunks: AsyncIterator[bytes], content_type: str, size_bytes: int
) -> web.StreamResponse:
    """Send `chunks`; when they fail midway the connection is cut, so that the client sees an incomplete answer."""
    response = web.StreamResponse(headers=headers(content_type))
    response.content_length = size_bytes
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
