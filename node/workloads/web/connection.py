"""One connection of a load generator: sends a request, reads its answer, checks it. Never blocks.

Answers are parsed by httptools (llhttp). Measured in turns, five times, a request costs 20 µs of CPU this way and 86 µs
with aiohttp's client; uvloop's protocols take 16 µs, but send in whole milliseconds only, and wrk, in C, 13 µs.
Imported by `node/workloads/web/generator.py` only, in a process of its own.
"""

from __future__ import annotations

import errno
import hashlib
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass

import httptools

#: No answer is read further than this, nor its headers further than that.
MAX_ANSWER_BYTES = 64 << 20
MAX_HEAD_BYTES = 256 << 10
#: What every connection reads into, one after the other: a buffer of this size made anew costs more than the read.
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
    """What an answer has to be: its status, and its very bytes or their hash where those are known."""

    status: int
    body: bytes | None = None
    sha256: str | None = None

    def wrong(self, status: int, parts: list[bytes], sha256: str | None) -> str | None:
        """What is wrong with an answer, as the name under which it is counted; None when it is right."""
        if status != self.status:
            return f"status {status}"
        if self.body is not None:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            if body != self.body:
                return "wrong length" if len(body) != len(self.body) else "wrong body"
        return "wrong body" if self.sha256 != sha256 else None


class Connection:
    """`ended(connection, error)` is called when a request is answered rightly (None) or not (what happened).

    Whoever waits on the selector calls `ready(events)` of the connection it finds as a key's data.
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
        """connections in a row that could not be made"""
        self.due_ns = self.sent_ns = self.free_ns = self.read_bytes = 0

    @property
    def busy(self) -> bool:
        """Whether a request is on it."""
        return self.state in (CONNECTING, SENDING, WAITING)

    def start(self, due_ns: int, now_ns: int) -> None:
        """Sends a request that was due at `due_ns`; connects first where there is no connection."""
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
        """The system says that it can be written to, or that there is something to read, or the end."""
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
            # Its end; or something nobody asked for, which the next answer could not be told from.
            self.close()
        elif size:
            self._parse(_VIEW[:size])
        elif self._begun and not self._framed:
            self._status = self._parser.get_status_code()
            self._answered(keep=False)  # an answer without a length ends with its connection
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
            self.fail("answer too long")
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

    # --- what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer: those that say how its end is found matter."""
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        """Everything before the body was there."""
        self._begun = True

    def on_body(self, body: bytes) -> None:
        """A piece of the answer's body."""
        if self._hash is not None:
            self._hash.update(body)
        elif self._expected.body is not None:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """The answer is whole; an interim one (100, 103) is none."""
        # Asked now: after this the parser is on the next answer.
        self._status, self._lasts = self._parser.get_status_code(), self._parser.should_keep_alive()
        if self._status >= 200:
            self._answers += 1
        else:
            self._begun = self._framed = False

    # --- its end

    def fail(self, error: str) -> None:
        """Ends the connection, and the request on it, if any, with `error`."""
        was_busy = self.busy
        self.close()
        if was_busy:
            self._ended(self, error)

    def close(self) -> None:
        """Closed; the next request connects anew."""
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
