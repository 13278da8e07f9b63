"""Large JSON answers are sent with gzip to clients that accept it. Streams and users' bytes are sent as they are."""

from __future__ import annotations

import asyncio
import gzip
import re

from aiohttp import web

#: Smaller answers are not worth it: one packet of a network holds them, or two.
SMALLEST_BYTES = 4096
#: Larger ones are compressed in a thread: this is about a millisecond of work.
IN_A_THREAD_BYTES = 128 * 1024
#: Level 4 takes half the time of the default, 6, for a few percent more bytes.
LEVEL = 4
_CODING = re.compile(r"\s*([a-z*-]+)\s*(?:;\s*q\s*=\s*([0-9.]{1,5})\s*)?", re.IGNORECASE)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip. Pure."""
    weights: dict[str, float] = {}
    for part in header.split(","):
        match = _CODING.fullmatch(part)
        try:
            if match:
                weights[match[1].lower().removeprefix("x-")] = float(match[2] or 1)
        except ValueError:  # not a number, so not a weight
            continue
    return weights.get("gzip", weights.get("*", 0.0)) > 0


async def compress(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """`response`, its body compressed when it is large JSON and the client accepts that."""
    if not isinstance(response, web.Response) or response.content_type != "application/json":
        return response
    body = response.body
    if not isinstance(body, bytes) or len(body) < SMALLEST_BYTES:
        return response
    response.headers["Vary"] = "Accept-Encoding"
    if accepts_gzip(",".join(request.headers.getall("Accept-Encoding", ()))):
        small = len(body) < IN_A_THREAD_BYTES
        packed = _gzip(body) if small else await asyncio.to_thread(_gzip, body)
        response.headers["Content-Encoding"] = "gzip"
        response.body = packed
    return response


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, LEVEL, mtime=0)
