"""A non-blocking connection of a load generator: sends a request, then reads and checks the response.

httptools (llhttp) parses responses. In five alternating measurements, a request took 20 µs of CPU this way and 86 µs
with aiohttp's client; with uvloop's protocols it takes 16 µs, but they send only at whole milliseconds, and with wrk,
in C, 13 µs. Only `node/workloads/web/generator.py` imports this file, in its own process.
"""

from __future__ import annotations

import errno
import hashlib
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass

import httptools

#: The maximum size of a response and of its headers.
MAX_ANSWER_BYTES = 64 << 20
MAX_HEAD_BYTES = 256 << 10
#: The read buffer of all connections: allocating one of this size takes longer than a read.
_BUFFER = bytearray(1 << 18)
_VIEW = memoryview(_BUFFER)

CLOSED, CONNECTING, SENDING, WAITING, FREE = range(5)
_WATCHED = {
    CLOSED: 0,
    CONNECTING: selectors.EVENT_WRITE,
    SENDING: selectors.EVENT_READ | selectors.EVENT_WRITE,
    WAITING: selectors.EVENT_READ,
    FREE: selectors.EVENT_READ,
}
_NAMES: dict[int | None, str] = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection reset",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "no route to host",
    errno.ETIMEDOUT: "connection timed out",
}


@dataclass(frozen=True)
class Expected:
    """The expected response: its status, and the bytes of its body or their hash, if known."""

    status: int
    body: bytes | None = None
    sha256: str | None = None

    def wrong(self, status: int, parts: list[bytes], sha256: str | None) -> str | None:
        """The name of the error under which a response is counted; None when it is correct."""
        if status != self.status:
            return f"status {status}"
        if self.body is not None:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            if body != self.body:
                return "wrong length" if len(body) != len(self.body) else "wrong body"
        return "wrong body" if self.sha256 != sha256 else None


class Connection:
    """One connection. `ended(connection, error)` is called at the end of a request; error: None for a correct response.

    The event loop must call `ready(events)` of the connection in the data of a selector key.
    """

    _sock: socket.socket
    """Set unless the state is CLOSED."""
    _parser: httptools.HttpResponseParser
    """Set from SENDING on."""

    def __init__(
        self,
        address: tuple[str, int],
        request: bytes,
        expected: Expected,
        keep_alive: bool,
        selector: selectors.BaseSelector,
        ended: Callable[[Connection, str | None], None],
    ) -> None:
        self._address, self._request, self._expected = address, request, expected
        self._keep, self._selector, self._ended = keep_alive, selector, ended
        self._watched = 0
        self.state = CLOSED
        self.failures = 0
        """Consecutive failures to connect."""
        self.due_ns = self.sent_ns = self.free_ns = self.read_bytes = 0

    @property
    def busy(self) -> bool:
        """Whether a request is in progress."""
        return self.state in (CONNECTING, SENDING, WAITING)

    def start(self, due_ns: int, now_ns: int) -> None:
        """Send a request that was due at `due_ns`; connect first if necessary."""
        self.due_ns, self.sent_ns = due_ns, now_ns
        self._parts: list[bytes] = []
        self._hash = hashlib.sha256() if self._expected.sha256 is not None else None
        self._length = self._answers = 0
        self._begun = self._framed = False
        if self.state == FREE:
            self._send(memoryview(self._request))
        else:
            self._connect()

    def _connect(self) -> None:
        self._sock = socket.socket(socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET)
        self._sock.setblocking(False)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._become(CONNECTING)
        number = self._sock.connect_ex(self._address)
        if number not in (0, errno.EINPROGRESS):
            self._not_connected(number)

    def _not_connected(self, number: int) -> None:
        self.failures += 1
        self.fail(_NAMES.get(number) or errno.errorcode.get(number, "no connection"))

    def ready(self, events: int) -> None:
        """Handle events of the selector: the socket is readable, writable or closed."""
        if self.state == CONNECTING:
            if number := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._not_connected(number)
                return
            self.failures, self._parser = 0, httptools.HttpResponseParser(self)
            self._send(memoryview(self._request))
        elif events & selectors.EVENT_READ:
            self._read()
        elif self.state == SENDING:
            self._send(self._rest)

    def _send(self, rest: memoryview) -> None:
        try:
            size = self._sock.send(rest)
        except BlockingIOError:
            size = 0
        except OSError as error:
            self.state = WAITING
            self.fail(_NAMES.get(error.errno, "connection reset"))
            return
        self._rest = rest[size:]
        self._become(SENDING if self._rest else WAITING)

    def _read(self) -> None:
        try:
            size = self._sock.recv_into(_BUFFER)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(_NAMES.get(error.errno, "connection reset"))
            return
        self.read_bytes += size
        self._length += size
        if self.state == FREE:
            # The connection was closed, or data without a request arrived, which would be taken for the next response.
            self.close()
        elif size:
            self._parse(_VIEW[:size])
        elif self._begun and not self._framed:
            self._status = self._parser.get_status_code()
            self._answered(keep=False)  # the end of the connection ends a response without a length
        else:
            self.fail("connection closed")

    def _parse(self, data: memoryview) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail("no HTTP")
            return
        if self._length > (MAX_ANSWER_BYTES if self._begun else MAX_HEAD_BYTES) and not self._answers:
            self.fail("response too long")
        elif self._answers > 1:
            self.fail("no HTTP")
        elif self._answers:
            self._answered(self._keep and self._lasts and self.state == WAITING)

    def _answered(self, keep: bool) -> None:
        sha256 = self._hash.hexdigest() if self._hash is not None else None
        wrong = self._expected.wrong(self._status, self._parts, sha256)
        if keep:
            self._become(FREE)
        else:
            self.close()
        self._ended(self, wrong)

    # --- callbacks of the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note whether a header defines the end of the response."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """The headers are complete."""
        self._begun = True

    def on_body(self, body: bytes) -> None:
        """Collect or hash a piece of the body."""
        if self._hash is not None:
            self._hash.update(body)
        elif self._expected.body is not None:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """The response is complete; interim responses (100, 103) don't count."""
        # Read now, since the parser then goes on to the next response.
        self._status, self._lasts = self._parser.get_status_code(), self._parser.should_keep_alive()
        if self._status >= 200:
            self._answers += 1
        else:
            self._begun = self._framed = False

    # --- the end of a connection

    def fail(self, error: str) -> None:
        """Close the connection, and end the request in progress, if any, with `error`."""
        was_busy = self.busy
        self.close()
        if was_busy:
            self._ended(self, error)

    def close(self) -> None:
        """Close the connection; the next request connects again."""
        if self.state != CLOSED:
            self._become(CLOSED)
            self._sock.close()

    def _become(self, state: int) -> None:
        self.state = state
        events = _WATCHED[state]
        if events == self._watched:
            return
        if not events:
            self._selector.unregister(self._sock)
        elif self._watched:
            self._selector.modify(self._sock, events, self)
        else:
            self._selector.register(self._sock, events, self)
        self._watched = events
