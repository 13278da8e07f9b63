"""The one connection of a process to the bus; with `wire.py` under it, all that imports nats-py.

Promises: callbacks run in the order the messages came; a connection that breaks is re-made for ever (jittered);
`store` and `post` resend what the bus did not confirm when that is harmless, and say so when it is not.
Nothing else in the project knows nats-py: its traps (design notes in ARCHITECTURE.md) end here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlparse

import nats
import nats.errors
from nats.aio.client import Client, Srv

from mesh.bus.kv import Kv
from mesh.bus.objects import Objects
from mesh.bus.publisher import Publisher, Settled
from mesh.bus.requests import Requests
from mesh.bus.wire import Line, Message, Parser, flush_soon, header_block, ping, write
from mesh.config import LAN, MeshConfig
from mesh.errors import BusUnavailable, QueztlError, TooLarge

__all__ = ["Bus", "Message", "Subscription"]

log = logging.getLogger(__name__)

#: What may wait for a broken connection to come back. What is in flight is bounded by windows and credit.
_PENDING_BYTES = 256 * 1024 * 1024
#: What is sent with `send_along` waits this long for company, seconds.
_ALONG_S = 0.005


class Subscription:
    """A live subscription; `await close()` ends it at once, `await drain()` after what the server has sent."""

    def __init__(
        self,
        inner: Any,
        number: bytes,
        direct: dict[bytes, Callable[[Message], None]],
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._inner, self._number, self._direct, self._flush = inner, number, direct, flush

    async def close(self) -> None:
        """Stop receiving. A closed connection is no error here."""
        self._direct.pop(self._number, None)
        await self._unsubscribe()

    async def drain(self) -> None:
        """Have the server send no more; what it sent before is still received when this returns.

        Raises: BusUnavailable (then it receives nothing more, either).
        """
        try:
            await self._unsubscribe()
            await self._flush()
        finally:
            self._direct.pop(self._number, None)

    async def _unsubscribe(self) -> None:
        try:
            await self._inner.unsubscribe()
        except (nats.errors.ConnectionClosedError, nats.errors.BadSubscriptionError):
            log.debug("subscription %s was closed with its connection", self._inner.subject)


class Bus:
    """A connection to the bus. Make one with `await Bus.connect(urls, name=…)`."""

    def __init__(self, client: Client, config: MeshConfig) -> None:
        self._client = client
        self._parser = client._ps = Parser(client)
        self._line = client._transport = Line()
        self.config = config
        self.epoch = 1
        """Counts connections: what was delivered in an earlier epoch is no longer ours to acknowledge."""
        self.on_lost: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], Awaitable[None] | None]] = []
        self._publisher: Publisher = Publisher(self)
        self.objects = Objects(self)
        self._requests = Requests(self)
        self._along: asyncio.TimerHandle | None = None

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
    ) -> Bus:
        """Connect to any of `urls`.

        `name`: of the connection, "<node id>/<incarnation>" for nodes. Raises: BusUnavailable when none answers.
        """
        bus = cls(Client(), config)
        login = {"user": user, "password": password} if user else {}
        try:
            await bus._open(list(urls), attempts, name=name, connect_timeout=max(1, round(connect_timeout_s)), **login)
        except BaseException:  # nobody else knows of the connection
            await bus.close()
            raise
        return bus

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
                    reconnect_time_wait=0.05,
                    ping_interval=self.config.ping_interval_s,
                    max_outstanding_pings=2,
                    pending_size=_PENDING_BYTES,
                    skip_subject_validation=True,
                    **options,
                )
                break
            except (OSError, nats.errors.Error, TimeoutError) as error:
                if attempt == attempts:
                    reason = str(error) or type(error).__name__
                    raise BusUnavailable(f"no bus server answers at {', '.join(servers)} ({reason})") from None
        # The first connection fails fast and says so (with -1 it would never give up); later ones are tried for ever.
        client.options["max_reconnect_attempts"] = -1
        client.options["allow_reconnect"] = True
        client.options["reconnect_time_wait"] = 0.05 + random.random() * 0.1
        await self._publisher.start()
        await self._requests.start()

    # --- what it is ---------------------------------------------------------------------------------
    @property
    def connected(self) -> bool:
        """Whether the connection stands right now."""
        return self._client.is_connected

    @property
    def client_id(self) -> int:
        """The server's number for this connection."""
        return int(self._client.client_id or 0)

    @property
    def server_id(self) -> str:
        """The id of the server it stands to."""
        return str(self._client._server_info.get("server_id", ""))

    @property
    def server_name(self) -> str:
        """The name of the server it stands to: the node id of its host."""
        return str(self._client._server_info.get("server_name", ""))

    @property
    def max_payload(self) -> int:
        """Largest message the server takes, bytes."""
        return int(self._client.max_payload)

    def learn(self, urls: Sequence[str]) -> None:
        """Where else the bus is: tried when the present server is lost."""
        known = {(one.uri.hostname, one.uri.port) for one in self._client._server_pool}
        new = [uri for uri in map(urlparse, urls) if (uri.hostname, uri.port) not in known]
        self._client._server_pool.extend(map(Srv, new))

    # --- core NATS ----------------------------------------------------------------------------------
    def send(self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | bytes | None = None) -> None:
        """Publish without suspending: for plain callbacks and the hot path.

        `headers` may be a ready block (`wire.header_block`). While the connection is being re-made, messages wait
        in nats-py's buffer. Raises: TooLarge; BusUnavailable when the connection is closed or its buffer full.
        """
        client = self._client
        if len(data) > client.max_payload:
            raise TooLarge(f"a message of {len(data)} bytes is more than the bus takes ({client.max_payload})")
        block = headers if isinstance(headers, bytes) else header_block(headers) if headers else b""
        if client.is_closed or client._pending_data_size > _PENDING_BYTES:
            raise BusUnavailable("the bus can't be reached right now; try again shortly")
        write(client, subject, data, reply, block)

    def send_along(self, subject: str, data: bytes) -> None:
        """`send` without hurry, with whatever is sent next or 5 ms later: a write of its own would cost this process
        a system call and the server a wake-up, together more than all the rest of a small message."""
        client = self._client
        if client.is_closed:
            raise BusUnavailable("the bus can't be reached right now; try again shortly")
        write(client, subject, data, "", b"", soon=False)
        if self._along is None:
            self._along = asyncio.get_running_loop().call_later(_ALONG_S, self._flush_along)

    def _flush_along(self) -> None:
        self._along = None
        if self._client._pending and self._client.is_connected:
            flush_soon(self._client)

    async def publish(
        self, subject: str, data: bytes, reply: str = "", headers: dict[str, str] | bytes | None = None
    ) -> None:
        """Publish on core NATS: at most once."""
        self.send(subject, data, reply, headers)

    async def request(
        self,
        subject: str,
        data: bytes,
        timeout_s: float = 2.0,
        headers: dict[str, str] | None = None,
        repeat: bool = False,
    ) -> Message:
        """Ask and wait for one answer; `repeat`: ask again when none comes, and after a reconnect.

        Raises: BusUnavailable when none comes in time.
        """
        return await self._requests.ask(subject, data, timeout_s, headers, repeat)

    async def subscribe(
        self, subject: str, callback: Callable[[Message], None], queue: str = "", wait: bool = True
    ) -> Subscription:
        """Have `callback` called, in order, for each message; returns once the server knows of it if `wait`."""
        inner = await self._client.subscribe(subject, queue, cb=_undelivered)
        # Registered before the server can have answered: nothing was awaited since the SUB was queued.
        number = str(inner._id).encode()
        self._parser.direct[number] = callback
        if wait:
            await self.flush()
        return Subscription(inner, number, self._parser.direct, self.flush)

    def new_inbox(self) -> str:
        """A subject nobody else uses."""
        return str(self._client.new_inbox())

    async def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until the server has processed everything sent so far; at once while the connection is re-made.

        Raises: BusUnavailable. (nats-py's own flush swallows a cancellation that comes with its answer.)
        """
        if self._client.is_closed:
            raise BusUnavailable("the connection to the bus is closed")
        try:
            async with asyncio.timeout(timeout_s):
                await ping(self._client)
        except TimeoutError:
            raise BusUnavailable(f"the bus did not answer within {timeout_s:g} s") from None

    # --- JetStream ----------------------------------------------------------------------------------
    async def store(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str = "",
        expect_last: int | None = None,
        ttl_s: float = 0,
        headers: dict[str, str] | None = None,
        resend: bool | None = None,
        timeout_s: float = 10.0,
    ) -> int:
        """Publish into a stream and wait for its confirmation; returns the sequence.

        `resend` (default: when `msg_id` is set): send again after a reconnect or a silent server.
        Raises: WrongSequence, StorageFull, Busy, BusUnavailable (then it is unknown whether it was stored).
        """
        return await self._publisher.store(
            subject, data, msg_id, expect_last, ttl_s, headers, bool(msg_id) if resend is None else resend,
            timeout_s,
        )  # fmt: skip

    def post(self, subject: str, data: bytes, headers: bytes, settled: Settled) -> None:
        """`store` for the hot path: `settled(answer, error)` is called; resent until the bus answers."""
        self._publisher.post(subject, data, headers, settled, resend=True)

    @property
    def unconfirmed(self) -> int:
        """How many stored messages the bus has not confirmed yet."""
        return self._publisher.unconfirmed

    async def api(
        self, endpoint: str, body: dict[str, Any] | None = None, timeout_s: float = 5.0, repeat: bool = True
    ) -> dict[str, Any]:
        """One call of the JetStream API: `endpoint` without the `$JS.API.` in front; `repeat`: see `request`.

        Raises: ApiError (the server's refusal), BusUnavailable.
        """
        return await self._requests.call(endpoint, body, timeout_s, repeat)

    def kv(self, bucket: str) -> Kv:
        """A view of one key-value bucket."""
        return Kv(self, bucket)

    async def close(self) -> None:
        """Send what is pending, then end the connection."""
        self.on_lost.clear()
        self.on_back.clear()
        await self._publisher.stop()
        try:
            if self._client.is_connected:
                await self._client.flush(1)
        except (nats.errors.Error, OSError) as error:
            log.debug("last flush before closing: %s", error)
        try:
            with contextlib.suppress(OSError):  # its server hangs up in this moment: closed is what was wanted
                await self._client.close()
        finally:
            self._line.hang_up()  # nats-py lets the connection stand when its last words don't get through

    # --- what nats-py tells us ----------------------------------------------------------------------
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
        log.debug("back on the bus (epoch %d)", self.epoch)
        self._publisher.resend_all()
        self._requests.repeat()
        for callback in list(self.on_back):
            try:
                outcome = callback()
                if outcome is not None:
                    await outcome
            except QueztlError as error:  # the next part must hear of it all the same
                log.warning("after the bus came back: %s", error)


async def _undelivered(_: Any) -> None:
    """nats-py wants a callback; messages reach ours in `wire.Parser` before."""
