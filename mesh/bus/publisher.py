"""Pipelined publishing into streams: one inbox for all confirmations, resent until the bus answers.

Waiting for each PubAck in turn is ten times slower than keeping many in flight. A message whose confirmation
was lost is sent again when that is harmless: it carries an id the stream de-duplicates by, or a condition
("expected last sequence 0") that a first copy already fulfilled.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mesh.bus.errors import IN_PROCESS, NOT_YET, refusal
from mesh.bus.wire import header_block, parse_headers
from mesh.errors import BusUnavailable, QueztlError

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message

#: Called with (the bus's answer, None) when stored, (b"", error) when refused or given up.
Settled = Callable[[bytes, QueztlError | None], None]

_SEQUENCE = re.compile(rb'"seq":\s*(\d+)')
#: A publish the bus has not answered for this long is sent again (or given up).
ANSWER_WITHIN_S = 3.0
#: While anything is unconfirmed, that is looked for this often; _ask_again_soon counts on it.
SWEEP_EVERY_S = 0.25


def sequence_of(answer: bytes) -> int:
    """The stream sequence in a confirmation."""
    found = _SEQUENCE.search(answer)
    return int(found.group(1)) if found else 0


class _Pending:
    __slots__ = ("data", "headers", "resend", "sent_at", "settled", "subject")

    def __init__(
        self,
        subject: str,
        data: bytes,
        headers: bytes,
        settled: Settled,
        resend: bool,
        sent_at: float,
    ) -> None:
        self.subject, self.data, self.headers = subject, data, headers
        self.settled, self.resend, self.sent_at = settled, resend, sent_at


class Publisher:
    """Keeps what was published until the bus confirmed it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._box = bus.new_inbox()
        self._prefix = len(self._box) + 1
        self._number = 0
        self._pending: dict[int, _Pending] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._stopped = False
        self._subscription: Any = None
        self._loop = asyncio.get_running_loop()

    @property
    def unconfirmed(self) -> int:
        """Messages sent and not answered yet."""
        return len(self._pending)

    async def start(self) -> None:
        """Subscribe to the confirmations."""
        self._subscription = await self._bus.subscribe(f"{self._box}.*", self._on_answer, wait=False)

    async def stop(self) -> None:
        """Give up on everything unconfirmed."""
        self._stopped = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pending in self._take_all(lambda _: True):
            pending.settled(b"", BusUnavailable("the connection was closed before the bus answered"))

    def post(self, subject: str, data: bytes, headers: bytes, settled: Settled, resend: bool) -> int:
        """Send, remember, and have `settled` called once."""
        self._number = number = self._number + 1
        self._remember(number, _Pending(subject, data, headers, settled, resend, self._loop.time()))
        self._bus.send(subject, data, f"{self._box}.{number}", headers)
        return number

    async def store(
        self,
        subject: str,
        data: bytes,
        msg_id: str,
        expect_last: int | None,
        ttl_s: float,
        headers: dict[str, str] | None,
        resend: bool,
        timeout_s: float,
    ) -> int:
        """See `Bus.store`."""
        fields = dict(headers or {})
        if msg_id:
            fields["Nats-Msg-Id"] = msg_id
        if expect_last is not None:
            fields["Nats-Expected-Last-Subject-Sequence"] = str(expect_last)
        if ttl_s:
            fields["Nats-TTL"] = f"{max(1, round(ttl_s))}s"
        future: asyncio.Future[int] = self._loop.create_future()

        def settled(answer: bytes, error: QueztlError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(sequence_of(answer))
            else:
                future.set_exception(error)

        number = self.post(subject, data, header_block(fields) if fields else b"", settled, resend)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise BusUnavailable(f"the bus did not confirm {subject} within {timeout_s:g} s") from None
        finally:
            self._pending.pop(number, None)

    def resend_all(self) -> None:
        """After a reconnect: what may be sent twice is, the rest is given up with its outcome unknown."""
        now = self._loop.time()
        for pending in self._take_all(lambda one: not one.resend):
            pending.settled(b"", BusUnavailable("the connection broke before the bus answered"))
        for number, pending in list(self._pending.items()):
            self._send_again(number, pending, now)

    def _send_again(self, number: int, pending: _Pending, now: float) -> None:
        pending.sent_at = now
        headers = parse_headers(pending.headers) if pending.headers else {}
        # Marks a message that may be a second copy: after an unclean restart of the server its table of
        # ids is gone, so whoever is given this one first reads the task's records.
        headers["Queztl-Resent"] = "1"
        self._bus.send(pending.subject, pending.data, f"{self._box}.{number}", header_block(headers))

    def _take_all(self, wanted: Callable[[_Pending], bool]) -> list[_Pending]:
        taken = [number for number, pending in self._pending.items() if wanted(pending)]
        return [self._pending.pop(number) for number in taken]

    def _on_answer(self, message: Message) -> None:
        pending = self._pending.pop(int(message.subject[self._prefix :]), None)
        if pending is None:
            return
        data = message.data
        if b'"error"' in data:
            error = json.loads(data)["error"]
            if pending.resend and error.get("err_code") in (*IN_PROCESS, NOT_YET):
                self._ask_again_soon(message, pending)
            else:
                pending.settled(b"", refusal(error, pending.subject))
        elif data:
            pending.settled(data, None)
        elif pending.resend:
            # "No responders": the stream has no leader yet (a restart, an election).
            self._ask_again_soon(message, pending)
        else:
            pending.settled(b"", BusUnavailable(f"no stream takes {pending.subject} right now; try again shortly"))

    def _ask_again_soon(self, message: Message, pending: _Pending) -> None:
        """Have the sweep send it again."""
        pending.sent_at = self._loop.time() - ANSWER_WITHIN_S + SWEEP_EVERY_S
        self._remember(int(message.subject[self._prefix :]), pending)

    def _remember(self, number: int, pending: _Pending) -> None:
        """Until it is confirmed; while anything is not, lost confirmations are looked for."""
        self._pending[number] = pending
        if self._sweeper is None and not self._stopped:
            self._sweeper = self._loop.call_later(SWEEP_EVERY_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        if not self._pending:
            return
        self._sweeper = self._loop.call_later(SWEEP_EVERY_S, self._sweep)
        if not self._bus.connected:
            return
        now = self._loop.time()
        late = [(n, p) for n, p in self._pending.items() if now - p.sent_at > ANSWER_WITHIN_S]
        for number, pending in late:
            if pending.resend:
                self._send_again(number, pending, now)
            else:
                del self._pending[number]
                pending.settled(b"", BusUnavailable(f"the bus did not confirm {pending.subject}"))
