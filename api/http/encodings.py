"""Bodies in pieces, decoded from gzip or deflate. Every limit counts decoded bytes.

The server itself decodes nothing (`auto_decompress` is off): which encodings it knows depends on what is installed, and
it answers the others with an error of its own.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from time import monotonic

from aiohttp import ClientError, web
from aiohttp.web import RequestPayloadError

from api.documents.errors import excerpt
from mesh.errors import BadInput, Fault, QueztlError

PIECE_BYTES = 128 * 1024
#: A body may take this long, and a second more for each so many bytes that have arrived: slow lines are served, and
#: clients that only hold a connection are not.
BODY_S = 30.0
SLOWEST_BYTES_PER_S = 1024
ACCEPTED = "gzip, deflate"
_GZIP, _ZLIB, _RAW_DEFLATE = 31, 15, -15
#: The lower half of the first byte of a zlib stream; some clients send "deflate" without the zlib header.
_ZLIB_METHOD = 8


class UnsupportedEncoding(QueztlError):
    """That Content-Encoding is not accepted; send the body with gzip or deflate, or without an encoding."""

    http_status = 415
    code = "unsupported_encoding"


class TooSlow(QueztlError):
    """The body did not arrive in time; send it again."""

    http_status = 408
    code = "too_slow"


def encoding_of(request: web.Request) -> str:
    """gzip, deflate, or "" when the body is sent as it is. Raises: UnsupportedEncoding."""
    header = ",".join(request.headers.getall("Content-Encoding", ()))
    encoding = header.strip().lower().removeprefix("x-")
    if encoding in ("", "identity"):
        return ""
    if encoding not in ("gzip", "deflate"):
        message = f"The Content-Encoding {excerpt(header, 40)!r} is not accepted; send gzip, deflate, or no encoding."
        raise UnsupportedEncoding(message)
    return encoding


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """The body, decoded, in pieces of at most PIECE_BYTES. Raises: UnsupportedEncoding, BadInput, TooSlow."""
    encoding = encoding_of(request)
    decoder = _Decoder(encoding) if encoding else None
    try:
        async for piece in _arriving(request):
            if decoder is None:
                yield piece
                continue
            decoder.feed(piece)
            while data := decoder.next_piece():
                yield data
    except (ClientError, RequestPayloadError):
        raise BadInput("The body ended before it was complete; send it again.", (Fault("body", "is cut"),)) from None
    if decoder is not None:
        decoder.finish()


async def _arriving(request: web.Request) -> AsyncIterator[bytes]:
    content, began, size = request.content, monotonic(), 0
    while True:
        if content.is_eof():  # all of it is here already, as with most requests
            piece = await content.read(PIECE_BYTES)
        else:
            left_s = began + BODY_S + size / SLOWEST_BYTES_PER_S - monotonic()
            try:
                async with asyncio.timeout(left_s):
                    piece = await content.read(PIECE_BYTES)
            except TimeoutError:
                raise TooSlow from None
        if not piece:
            return
        size += len(piece)
        yield piece


class _Decoder:
    """Decodes a stream without ever holding more than a piece of its output."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._stream: zlib._Decompress | None = None
        self._rest = b""
        self._has_begun = False

    def feed(self, data: bytes) -> None:
        """Take the next encoded bytes."""
        self._rest += data

    def next_piece(self) -> bytes:
        """The next decoded bytes; empty when more encoded ones are needed. Raises: BadInput."""
        while self._rest or self._stream is not None:
            if self._stream is None:
                self._stream = zlib.decompressobj(self._window_bits())
            try:
                data = self._stream.decompress(self._rest, PIECE_BYTES)
            except zlib.error:
                raise self._refusal(f"is not valid {self._encoding}") from None
            self._rest = self._stream.unconsumed_tail
            if self._stream.eof:
                # A gzip file may have several members.
                self._rest, self._stream = self._stream.unused_data, None
            if data or not self._rest:
                return data
        return b""

    def finish(self) -> None:
        """The encoded body has ended. Raises: BadInput when its stream has not."""
        if self._stream is not None:
            raise self._refusal(f"ends in the middle of its {self._encoding} stream")

    def _window_bits(self) -> int:
        is_first, self._has_begun = not self._has_begun, True
        if self._encoding == "gzip":
            return _GZIP
        if not is_first:
            raise self._refusal("has bytes after the end of its deflate stream")
        return _ZLIB if self._rest[0] & 0x0F == _ZLIB_METHOD else _RAW_DEFLATE

    def _refusal(self, problem: str) -> BadInput:
        return BadInput(f"The body {problem}.", (Fault("body", problem),))
