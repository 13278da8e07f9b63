"""Core NATS: one connection of a process to the bus, on top of nats-py.

Guarantees: callbacks run in the order in which the messages arrive; a lost connection is re-established, for as long
as it takes, at a jittered interval; repeatable requests without a reply are then sent again.
Only this module and `wire.py` use nats-py, and they hide its pitfalls (design notes in docs/decisions).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self
from urllib.parse import urlparse

from mesh.bus import library
from mesh.bus.library import Srv
from mesh.bus.library import Subscription as NatsSubscription
from mesh.bus.requests import Requests
from mesh.bus.wire import Line, MeshClient, Message, Parser, check_library, flush_soon, header_block, ping, write
from mesh.config import LAN, MeshConfig
from mesh.errors import BusUnavailable, QueztlError, TooLarge

log = logging.getLogger(__name__)

#: Limit of the buffer for messages sent while the connection is down. Windows and credit bound what is in flight.
_PENDING_BYTES = 256 * 1024 * 1024
#: A message sent with `send_deferred` waits this long for another write, seconds.
_DEFER_S = 0.005


class Subscription:
    """A live subscription. `close()` ends it at once, `drain()` after the messages that the server has already sent."""

    def __init__(
        self,
        inner: NatsSubscription,
        number: bytes,
        direct: dict[bytes, Callable[[Message], None]],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._inner, self._number, self._direct, self._flush = inner, number, direct, flush

    async def close(self) -> None:
        """Stop receiving. Does nothing on a closed connection."""
        self._direct.pop(self._number, None)
        await self._unsubscribe()

    async def drain(self) -> None:
        """Unsubscribe, and return once every message that the server sent before is received.

        Raises: BusUnavailable; the subscription has ended then, too.
        """
        try:
            await self._unsubscribe()
            await self._flush()
        finally:
            self._direct.pop(self._number, None)

    async def _unsubscribe(self) -> None:
        try:
            await self._inner.unsubscribe()
        except (library.ConnectionClosedError, library.BadSubscriptionError):
            log.debug("subscription %s was closed with its connection", self._inner.subject)


class Connection:
    """A connection to the bus. Create one with `await Connection.connect(urls, name=…)`."""

    def __init__(self, config: MeshConfig) -> None:
        self._client = client = MeshClient()
        self._parser = Parser(client)
        client._ps = self._parser  # pyrefly: ignore[bad-assignment]  # nats-py calls parse() and reset() only
        self._line = client._transport = Line()
        self.config = config
        self.epoch = 1
        """Number of this connection, counted from 1: deliveries of an earlier epoch must not be acknowledged."""
        self.on_lost: list[Callable[[], None]] = []
        """Called when the connection is lost."""
        self.on_back: list[Callable[[], Awaitable[None] | None]] = []
        """Called, and awaited, when the connection is re-established."""
        self._requests = Requests(self.send, self.new_inbox())
        self._deferred_flush: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(
        cls,
        urls: Sequence[str],
        *,
        name: str,
        config: MeshConfig = LAN,
        user: str = "",
        password: str = "",
        connect_timeout_s: float = 2.0,
        attempts: int = 1,
    ) -> Self:
        """Connect to any of `urls`.

        `name`: the connection's name, "<node id>/<incarnation>" for nodes. Raises: BusUnavailable when none answers,
        CannotStart when nats-py is of a release that does not fit.
        """
        check_library()
        connection = cls(config)
        login = {"user": user, "password": password} if user else {}
        timeout_s = max(1, round(connect_timeout_s))
        try:
            await connection._open(list(urls), attempts, name=name, connect_timeout=timeout_s, **login)
        except BaseException:  # the caller has no reference to close it with
            await connection.close()
            raise
        return connection

    async def _open(self, servers: list[str], attempts: int, **options: Any) -> None:
        client = self._client
        for attempt in range(1, attempts + 1):
            try:
                await client.connect(
                    servers=servers,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    max_outstanding_pings=2,
                    pending_size=_PENDING_BYTES,
                    skip_subject_validation=True,
                    # nats-py annotates both as int and passes them to asyncio as they are.
                    reconnect_time_wait=0.05,  # pyrefly: ignore[bad-argument-type]
                    ping_interval=self.config.ping_interval_s,  # pyrefly: ignore[bad-argument-type]
                    **options,
                )
                break
            except (OSError, library.Error) as error:
                if attempt == attempts:
                    reason = str(error) or type(error).__name__
                    raise BusUnavailable(f"no bus server answers at {', '.join(servers)} ({reason})") from None
        client.meshes |= {self.mesh_id} - {""}
        # The first connection must fail fast (with -1 it would never give up); a lost one is retried without a limit.
        client.options["max_reconnect_attempts"] = -1
        client.options["allow_reconnect"] = True
        client.options["reconnect_time_wait"] = 0.05 + random.random() * 0.1
        await self.subscribe(f"{self._requests.inbox}.*", self._requests.on_reply, wait=False)

    # --- properties ---------------------------------------------------------------------------------
    @property
    def connected(self) -> bool:
        """Whether the connection is up now."""
        return self._client.is_connected

    @property
    def client_id(self) -> int:
        """The server's number for this connection."""
        return self._client.client_id or 0

    @property
    def server_id(self) -> str:
        """The id of the server at the other end."""
        return str(self._client._server_info.get("server_id", ""))

    @property
    def server_name(self) -> str:
        """The name of the server at the other end: the node id of its host."""
        return str(self._client._server_info.get("server_name", ""))

    @property
    def mesh_id(self) -> str:
        """The mesh of the server at the other end, as it says itself; "" for a server of no mesh."""
        return str(self._client._server_info.get("cluster") or "")

    @property
    def max_payload(self) -> int:
        """Size limit of one message, bytes."""
        return self._client.max_payload

    def learn(self, urls: Sequence[str], mesh: str = "") -> None:
        """Add servers to try when the present one is lost. A server of another mesh is left at once, except one of
        `mesh`, into which this one is merged."""
        if mesh and self._client.meshes:
            self._client.meshes.add(mesh)
        known = {(server.uri.hostname, server.uri.port) for server in self._client._server_pool}
        new = [uri for uri in map(urlparse, urls) if (uri.hostname, uri.port) not in known]
        self._client._server_pool.extend(map(Srv, new))

    def forget(self, urls: Sequence[str], mesh: str) -> None:
        """Try these servers no more, except the present one: they are those of `mesh`, another mesh."""
        if mesh != self.mesh_id:
            self._client.meshes.discard(mesh)
        gone = {(uri.hostname, uri.port) for uri in map(urlparse, urls)}
        pool, present = self._client._server_pool, self._client._current_server
        pool[:] = [server for server in pool if server is present or (server.uri.hostname, server.uri.port) not in gone]

    # --- publish, request, subscribe ----------------------------------------------------------------
    def send(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | bytes | None = None) -> None:
        """Publish without suspending, at most once: for plain callbacks and the hot path.

        `headers` may be a ready block (`wire.header_block`). While the connection is down, messages wait in nats-py's
        buffer. Raises: TooLarge; BusUnavailable when the connection is closed or the buffer is full.
        """
        client = self._client
        if len(data) > client.max_payload:
            raise TooLarge(f"a message of {len(data)} bytes is more than the bus takes ({client.max_payload})")
        block = headers if isinstance(headers, bytes) else header_block(headers) if headers else b""
        if client.is_closed or client._pending_data_size > _PENDING_BYTES:
            raise BusUnavailable("the bus can't be reached right now; try again shortly")
        write(client, subject, data, reply, block)

    def send_deferred(self, subject: str, data: bytes) -> None:
        """`send` together with the next write, or after 5 ms.

        A write of its own would cost this process a system call and the server a wake-up, together more than the rest
        of the handling of a small message. Raises: BusUnavailable when the connection is closed.
        """
        client = self._client
        if client.is_closed:
            raise BusUnavailable("the bus can't be reached right now; try again shortly")
        write(client, subject, data, "", b"", flush=False)
        if self._deferred_flush is None:
            self._deferred_flush = asyncio.get_running_loop().call_later(_DEFER_S, self._flush_deferred)

    def _flush_deferred(self) -> None:
        self._deferred_flush = None
        if self._client._pending and self._client.is_connected:
            flush_soon(self._client)

    async def publish(
        self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | bytes | None = None
    ) -> None:
        """`send` as a coroutine."""
        self.send(subject, data, reply, headers)

    async def request(
        self,
        subject: str,
        data: bytes,
        timeout_s: float = 2.0,
        headers: dict[str, str] | None = None,
        repeat: bool = False,
    ) -> Message:
        """Send a request and wait for one reply.

        `repeat`: send it again when no reply comes, and after a reconnect.
        Raises: NobodyAnswers when nobody subscribes to `subject`, BusUnavailable when no reply comes in time.
        """
        return await self._requests.ask(subject, data, timeout_s, headers, repeat)

    async def subscribe(
        self, subject: str, callback: Callable[[Message], None], queue: str = "", wait: bool = True
    ) -> Subscription:
        """Have `callback` called for each message, in order. With `wait` it returns once the server has subscribed."""
        inner = await self._client.subscribe(subject, queue, cb=_undelivered)
        # Nothing was awaited since the SUB was queued, so no message can have arrived before this line.
        number = str(inner._id).encode()
        self._parser.direct[number] = callback
        if wait:
            await self.flush()
        return Subscription(inner, number, self._parser.direct, self.flush)

    def new_inbox(self) -> str:
        """A unique subject."""
        return self._client.new_inbox()

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until the server has processed everything sent so far; returns at once while the connection is down.

        nats-py's own flush swallows a cancellation that arrives together with the PONG. Raises: BusUnavailable.
        """
        if self._client.is_closed:
            raise BusUnavailable("the connection to the bus is closed")
        try:
            async with asyncio.timeout(timeout_s):
                await ping(self._client)
        except TimeoutError:
            raise BusUnavailable(f"the bus did not answer within {timeout_s:g} s") from None

    async def close(self) -> None:
        """Send what is pending, then close the connection."""
        self.on_lost.clear()
        self.on_back.clear()
        try:
            if self._client.is_connected:
                await self._client.flush(1)
        except (library.Error, OSError) as error:
            log.debug("last flush before closing: %s", error)
        finally:  # also when the flush is cancelled: nobody would close the connection later
            try:
                # The server may close the connection at the same moment: uvloop then raises a RuntimeError.
                with contextlib.suppress(OSError, RuntimeError):
                    await self._client.close()
            finally:
                self._line.hang_up()  # nats-py keeps the connection open when its last write fails

    # --- callbacks of nats-py -----------------------------------------------------------------------
    async def _on_error(self, error: Exception) -> None:
        log.debug("bus connection: %s", error or type(error).__name__)

    async def _on_disconnected(self) -> None:
        if self._client.is_closed:
            return
        self.epoch += 1
        log.debug("the connection to the bus is lost; reconnecting")
        for callback in list(self.on_lost):
            callback()

    async def _on_reconnected(self) -> None:
        log.debug("reconnected to the bus (epoch %d)", self.epoch)
        self._requests.repeat()
        for callback in list(self.on_back):
            try:
                outcome = callback()
                if outcome is not None:
                    await outcome
            except QueztlError as error:  # the remaining callbacks must run all the same
                log.warning("after the bus came back: %s", error)


async def _undelivered(_: Any) -> None:
    """nats-py requires a callback; `wire.Parser` delivers messages before they reach this one."""
