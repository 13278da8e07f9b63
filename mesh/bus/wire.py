"""The hot path of a connection: a faster parser and writer underneath nats-py's client.

nats-py matches every line against regular expressions and takes each message through a queue and a task. This parser
cuts lines by hand and calls a subscription's callback directly, which brings the CPU time of a node's daemon for a
small task from 146 to about 85 us (single runs, busy machine). nats-py's own parser gets everything that is no message
(INFO, PING, -ERR …), and nats-py connects, reconnects and re-subscribes. `check_library` lists the private names used
here and in `connection.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import ParseResult

import msgspec

from mesh.bus.library import Client, Error, Subscription, TcpTransport
from mesh.errors import CannotStart

log = logging.getLogger(__name__)

#: The releases of nats-py whose private names were tested; pyproject.toml pins the same.
NATS_PY = ">=2.16,<2.17"
#: Limit of one line from a server, bytes; INFO, the longest, lists the servers of a cluster.
MAX_LINE_BYTES = 1024 * 1024
#: A server of another mesh is dialled again after this, seconds: its address may be this mesh's again.
STRANGER_AGAIN_S = 0.5
_CRLF = b"\r\n"
_VERSION = b"NATS/1.0"


@cache
def check_library() -> None:
    """Check that nats-py has the private names that `mesh.bus` uses. Raises: CannotStart, which names a missing one."""
    client = Client()
    _require(client, "_pending", "_pending_data_size", "_flush_queue", "_transport", "_server_info", "_server_pool")
    _require(client, "_pings_outstanding", "_pongs", "_pongs_received", "_send_ping", "_process_msg", "_ps", "options")
    _require(client, "_process_info", "_current_server")
    _require(client._ps, "buf", "parse", "reset")
    _require(TcpTransport(), "_bare_io_writer")
    _require(Subscription(client), "_id")


def _require(owner: object, *names: str) -> None:
    for name in names:
        if not hasattr(owner, name):
            from importlib.metadata import version

            found = f"nats-py {version('nats-py')} has no {type(owner).__name__}.{name}"
            raise CannotStart(f"{found}, which the bus client uses; install nats-py{NATS_PY}")


class Message(msgspec.Struct):
    """One message as received; headers are parsed on first use."""

    subject: str
    reply: str
    data: bytes
    raw_headers: bytes = b""
    _headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        """Name -> value; the status line is in "Status" and "Description"."""
        if self._headers is None:
            self._headers = parse_headers(self.raw_headers) if self.raw_headers else {}
        return self._headers


def parse_headers(raw: bytes) -> dict[str, str]:
    """Parse a header block: `NATS/1.0[ status[ description]]`, then `Name: value` lines."""
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
    """The header block for `headers`; line breaks inside them become spaces."""
    lines = [_VERSION]
    for name, value in headers.items():
        lines.append(f"{name}: {value}".replace("\r", " ").replace("\n", " ").encode())
    return _CRLF.join(lines) + _CRLF + _CRLF


class Parser:
    """Replaces nats-py's parser, of which the client calls `parse(bytes)` and `reset()` only."""

    def __init__(self, client: Any) -> None:
        self._client, self._base = client, client._ps
        self._rest = b""
        self._large: list[bytes] = []
        self._missing = 0
        self.direct: dict[bytes, Callable[[Message], None]] = {}
        """Subscription number, as the server writes it -> callback, called in the order of the messages."""

    def reset(self) -> None:
        """Drop a half-read message: a new connection begins."""
        self._rest, self._missing = b"", 0
        self._large.clear()
        self._base.reset()

    async def parse(self, data: bytes = b"") -> None:
        """Process bytes read from the socket. Raises: nats-py's ProtocolError for anything that is not NATS."""
        if self._missing > 0:
            # A large message arrives in many reads, which are joined once, not at every read.
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
                    split, valid = start, parts[0] == b"MSG" and 4 <= len(parts) <= 5
                    reply = parts[3] if len(parts) == 5 else b""
                else:
                    split, valid = start + int(parts[-2]), parts[0] == b"HMSG" and 5 <= len(parts) <= 6
                    reply = parts[3] if len(parts) == 6 else b""
            except (ValueError, IndexError):
                return await self._refuse()
            if not valid or not start <= split <= end:
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
                # One failing callback must not end the reader of the connection; its author finds it in the log.
                log.exception("handling a message on %s failed", parts[1].decode("utf-8", "replace"))
        self._rest = data[at:]
        if len(self._rest) > MAX_LINE_BYTES:
            await self._refuse()

    async def _control(self, line: bytes) -> None:
        """Process a line that does not begin a message."""
        if line == b"PONG\r\n":
            return self._pong()
        try:
            await self._base.parse(line)
        except (ValueError, TypeError, AttributeError):  # nats-py raises these for a malformed INFO or -ERR
            await self._refuse()
        if self._base.buf:  # it waits for the rest of a malformed line, which would swallow what follows
            await self._refuse()

    async def _refuse(self) -> None:
        """Raise nats-py's ProtocolError, on which it reconnects; any other exception ends its reader for good."""
        self._base.reset()
        await self._base.parse(b"?\r\n")

    def _pong(self) -> None:
        """In place of nats-py's own, whose reader ends on a PONG for a flush that was cancelled or timed out."""
        client = self._client
        if client._pongs:
            waiting = client._pongs.pop(0)
            if not waiting.done():
                waiting.set_result(True)
            client._pongs_received += 1
            client._pings_outstanding = 0


def write(client: Any, subject: str, data: bytes, reply: str, headers: bytes, flush: bool = True) -> None:
    """Queue one publish for the client's flusher; the caller has checked that the client is not closed.

    Without `flush` it is written together with the next message, or by `flush_soon`.
    """
    if headers:
        sizes = f"{len(headers)} {len(headers) + len(data)}"
        command = b"".join((f"HPUB {subject} {reply} {sizes}\r\n".encode(), headers, data, _CRLF))
    else:
        command = b"".join((f"PUB {subject} {reply} {len(data)}\r\n".encode(), data, _CRLF))
    client._pending.append(command)
    client._pending_data_size += len(command)
    if flush:
        flush_soon(client)


def flush_soon(client: Any) -> None:
    """Have the queue written at the end of this iteration of the event loop."""
    queue = client._flush_queue
    if queue.empty():
        queue.put_nowait(asyncio.get_running_loop().create_future())


async def ping(client: Any) -> None:
    """Wait for the PONG to a PING behind everything queued so far; returns at once when not connected."""
    if client.is_connected:
        if client._pending:  # nats-py writes its PING at once, ahead of what its flusher has not written yet
            client._transport.writelines(client._pending)
            client._pending, client._pending_data_size = list[bytes](), 0
        answered = asyncio.get_running_loop().create_future()
        await client._send_ping(answered)
        await answered


class OtherMesh(Error):
    """The server at an address belongs to another mesh."""


class MeshClient(Client):
    """nats-py's client, which stays in its mesh: it leaves a server of another one before it sends anything to it.

    An address that this client has learnt may be another machine's by now. A bus server says in its greeting which mesh
    it serves: the name of its cluster, which its host has from its own data directory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.meshes: set[str] = set()
        """The meshes whose servers may be used: that of the first connection, and those that were added since. Empty:
        any server."""
        self._strangers: dict[str, str] = {}
        """Address -> the other mesh whose server answered there."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Also raises OtherMesh, on which nats-py tries the next server."""
        if initial_connection:
            await self._check_mesh(str(info.get("cluster") or ""))
        await super()._process_info(info, initial_connection)

    async def _check_mesh(self, mesh: str) -> None:
        address = self._current_server.uri.netloc if self._current_server else ""
        if not self.meshes or mesh in self.meshes:
            self._strangers.pop(address, None)
            return
        if self._strangers.get(address) == mesh:
            await asyncio.sleep(STRANGER_AGAIN_S)
        else:
            self._strangers[address] = mesh
            log.warning(
                "the bus server at %s belongs to %s now and is left alone; this one belongs to %s", address,
                f"the mesh {mesh}" if mesh else "no mesh", " and ".join(sorted(self.meshes)),
            )  # fmt: skip
        raise OtherMesh(f"the bus server at {address} belongs to another mesh")


class Line(TcpTransport):
    """The TCP connection underneath nats-py's client, which is always reset, never closed gracefully.

    nats-py itself waits until a frozen or unreachable server has taken all pending data before it tries another server
    (the publisher sends that data again anyway), and leaks a connection on which no INFO arrived.
    """

    def __init__(self) -> None:
        super().__init__()
        self._closed = False

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connect, and reset the previous connection. Raises: OSError, TimeoutError."""
        self.close()
        await super().connect(uri, buffer_size, connect_timeout)
        if self._closed:  # by `hang_up` while it was being made: nobody else would close it
            self.close()
            raise ConnectionAbortedError("this client has been closed")

    def hang_up(self) -> None:
        """Reset the connection, also one that is being made now."""
        self._closed = True
        self.close()

    def close(self) -> None:
        """Reset the connection, if there is one."""
        if self._bare_io_writer is not None:
            self._bare_io_writer.transport.abort()

    def __bool__(self) -> bool:
        """True also while not connected: nats-py replaces a false transport with one of its own."""
        return True
