"""The hot path of the connection: a faster parser and writer under nats-py's client.

nats-py matches every line against regular expressions and takes each message through a queue and a task: without
that, a node's daemon took about 85 instead of 146 us of CPU for a small task (single runs, busy machine). This parser
cuts lines by hand and calls a subscription's callback at once; everything that is no message (INFO, PING, -ERR …) is
left to nats-py's own parser, and so are connecting, reconnecting and re-subscribing. It touches private names of the
client (`_ps`, `_pending`, `_flush_queue`, `_pongs`, `_send_ping`, `_bare_io_writer`), all here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport

log = logging.getLogger(__name__)

#: No line of a server is longer than this, bytes; INFO, the longest, lists the servers of a cluster.
MAX_LINE_BYTES = 1024 * 1024
_CRLF = b"\r\n"
_VERSION = b"NATS/1.0"


class Message:
    """One message as it came; headers are looked at only when somebody asks."""

    __slots__ = ("_headers", "data", "raw_headers", "reply", "subject")

    def __init__(self, subject: str, reply: str, data: bytes, raw_headers: bytes = b"") -> None:
        self.subject, self.reply, self.data, self.raw_headers = subject, reply, data, raw_headers
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Name -> value; a status line is under "Status" and "Description"."""
        if self._headers is None:
            self._headers = parse_headers(self.raw_headers) if self.raw_headers else {}
        return self._headers


def parse_headers(raw: bytes) -> dict[str, str]:
    """The header block of a message: `NATS/1.0[ status[ description]]`, then `Name: value` lines."""
    lines = raw.split(_CRLF)
    found: dict[str, str] = {}
    status = lines[0][len(_VERSION) :].strip()
    if status:
        code, _, description = status.partition(b" ")
        found["Status"] = code.decode("ascii", "replace")
        if description:
            found["Description"] = description.decode("utf-8", "replace")
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            found[name.strip().decode("utf-8", "replace")] = value.strip().decode("utf-8", "replace")
    return found


def header_block(headers: dict[str, str]) -> bytes:
    """The header block for `headers`; line breaks in them become spaces."""
    lines = [_VERSION]
    for name, value in headers.items():
        lines.append(f"{name}: {value}".replace("\r", " ").replace("\n", " ").encode())
    return _CRLF.join(lines) + _CRLF + _CRLF


class Parser:
    """Stands in for nats-py's parser: `parse(bytes)` and `reset()` are all the client calls."""

    def __init__(self, client: Any) -> None:
        self._client, self._base = client, client._ps
        self._rest = b""
        self._large: list[bytes] = []
        self._missing = 0
        self.direct: dict[bytes, Callable[[Message], None]] = {}
        """Subscription number (as the server writes it) -> callback, called in the order of the messages."""

    def reset(self) -> None:
        """Forget a half-read message: a new connection begins."""
        self._rest, self._missing = b"", 0
        self._large.clear()
        self._base.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read. Raises: nats-py's ProtocolError for what is no NATS."""
        if self._missing > 0:
            # A large message comes in many reads: joined once, not at every read.
            self._large.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._large)
            self._large.clear()
        elif self._rest:
            data = self._rest + data
        at, size, direct = 0, len(data), self.direct
        while (line_end := data.find(_CRLF, at)) >= 0:
            first = data[at]
            if first != 0x4D and first != 0x48:  # neither MSG nor HMSG
                await self._control(data[at : line_end + 2])
                at = line_end + 2
                continue
            parts = data[at:line_end].split()
            start = line_end + 2
            try:
                number, end = parts[2], start + int(parts[-1])
                if first == 0x4D:
                    split, right = start, parts[0] == b"MSG" and 4 <= len(parts) <= 5
                    reply = parts[3] if len(parts) == 5 else b""
                else:
                    split, right = start + int(parts[-2]), parts[0] == b"HMSG" and 5 <= len(parts) <= 6
                    reply = parts[3] if len(parts) == 6 else b""
            except (ValueError, IndexError):
                right = False
            if not right or not start <= split <= end:
                return await self._refuse()
            if size < end + 2:
                self._large.append(data[at:])
                self._rest, self._missing = b"", end + 2 - size
                return
            at = end + 2
            callback = direct.get(number)
            if callback is None:
                if not number.isdigit():
                    return await self._refuse()
                headers = data[start:split] or None
                await self._client._process_msg(int(number), parts[1], reply, data[split:end], headers)
                continue
            try:
                callback(Message(parts[1].decode(), reply.decode(), data[split:end], data[start:split]))
            except Exception:
                # One bad message must not end the connection's reader; the callback's author must see it.
                log.exception("taking a message on %s failed", parts[1].decode("utf-8", "replace"))
        self._rest = data[at:]
        if len(self._rest) > MAX_LINE_BYTES:
            await self._refuse()

    async def _control(self, line: bytes) -> None:
        """A line that begins no message."""
        if line == b"PONG\r\n":
            return self._pong()
        try:
            await self._base.parse(line)
        except (ValueError, TypeError, AttributeError):  # what nats-py's makes of an INFO or -ERR that is none
            await self._refuse()
        if self._base.buf:  # what it takes for the beginning of something would be before all that follows
            await self._refuse()

    async def _refuse(self) -> None:
        """Raises nats-py's ProtocolError, so that it connects again: of any other one its reader dies, and nothing
        would be heard any more."""
        self._base.reset()
        await self._base.parse(b"?\r\n")

    def _pong(self) -> None:
        """nats-py's reader dies of the answer to a flush whose caller was cancelled or had given up."""
        client = self._client
        if client._pongs:
            waiting = client._pongs.pop(0)
            if not waiting.done():
                waiting.set_result(True)
            client._pongs_received += 1
            client._pings_outstanding = 0


def write(client: Any, subject: str, data: bytes, reply: str, headers: bytes, soon: bool = True) -> None:
    """Queue one publish for the client's flusher; the caller has checked that the client is connected.

    Not `soon`: it goes with whatever is written next, or with `flush_soon`.
    """
    if headers:
        sizes = f"{len(headers)} {len(headers) + len(data)}"
        command = b"".join((f"HPUB {subject} {reply} {sizes}\r\n".encode(), headers, data, _CRLF))
    else:
        command = b"".join((f"PUB {subject} {reply} {len(data)}\r\n".encode(), data, _CRLF))
    client._pending.append(command)
    client._pending_data_size += len(command)
    if soon:
        flush_soon(client)


def flush_soon(client: Any) -> None:
    """Have what is queued written once this turn of the loop is over."""
    queue = client._flush_queue
    if queue.empty():
        queue.put_nowait(asyncio.get_running_loop().create_future())


async def ping(client: Any) -> None:
    """Wait for the server's answer to a PING behind all that was written; nothing to wait for when not connected."""
    if client.is_connected:
        if client._pending:  # nats-py writes its PING at once, before what its flusher has not written yet
            client._transport.writelines(client._pending)
            client._pending, client._pending_data_size = [], 0
        answered = asyncio.get_running_loop().create_future()
        await client._send_ping(answered)
        await answered


class Line(TcpTransport):
    """The TCP connection under nats-py's client, hung up at once.

    nats-py itself waits for a server that is frozen or cut off to take what is left before it turns to another one
    (whoever asked sends again what waits), and drops a connection on which no INFO came without closing it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._over = False

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """In place of the connection there was. Raises: OSError, TimeoutError."""
        self.close()
        await super().connect(uri, buffer_size, connect_timeout)
        if self._over:  # hung up while it was made: nobody else would
            self.close()
            raise ConnectionAbortedError("this client has been closed")

    def hang_up(self) -> None:
        """Reset the connection that stands, and any that is just being made."""
        self._over = True
        self.close()

    def close(self) -> None:
        """Reset the connection that stands, if one does."""
        if self._bare_io_writer is not None:
            self._bare_io_writer.transport.abort()

    def __bool__(self) -> bool:
        """Not "is it connected": nats-py puts one of its own in the place of what is false."""
        return True
