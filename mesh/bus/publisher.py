"""Pipelined publishing into streams: one inbox for all confirmations, repeated until the bus answers.

Waiting for each PubAck before the next publish is ten times slower than keeping many in flight. A message whose
confirmation is lost is sent again when that is harmless: it carries an id that the stream de-duplicates by, or a
condition ("expected last sequence 0") that the first copy already fulfilled. So is one that the bus says it did not
store, for a transient reason (`error_codes.py`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping

import msgspec

from mesh.bus import reserved
from mesh.bus.connection import Connection
from mesh.bus.error_codes import NOTHING_DONE
from mesh.bus.errors import IN_PROCESS, NotNow, answer_of, refusal
from mesh.bus.wire import Message, header_block, parse_headers
from mesh.errors import BusUnavailable, QueztlError

#: Called with (the PubAck, None) when the message is stored, with (b"", error) when it is refused or given up.
Settled = Callable[[bytes, QueztlError | None], None]

_SEQUENCE = re.compile(rb'"seq":\s*(\d+)')
#: Header of a message that is sent again.
RESENT_HEADER = "Queztl-Resent"
#: A publish without a confirmation is sent again, or given up, after this time.
ANSWER_WITHIN_S = 3.0
#: Interval of the sweep for overdue confirmations, which runs while there are pending messages.
SWEEP_EVERY_S = 0.25


def sequence_of(confirmation: bytes) -> int:
    """The stream sequence in a PubAck."""
    found = _SEQUENCE.search(confirmation)
    return int(found.group(1)) if found else 0


class _Pending(msgspec.Struct):
    subject: str
    data: bytes
    headers: bytes
    settled: Settled
    resend: bool
    sent_at: float
    refused: QueztlError | None = None
    """The last transient refusal."""
    not_stored: bool = False
    """Whether the bus has said that it did not store the last copy: sending another one is harmless."""


class Publisher:
    """Keeps published messages until the bus has confirmed them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.new_inbox()
        self._prefix = len(self._inbox) + 1
        self._number = 0
        self._pending: dict[int, _Pending] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._stopped = False
        self._loop = asyncio.get_running_loop()

    @property
    def unconfirmed(self) -> int:
        """Number of messages sent and not confirmed yet."""
        return len(self._pending)

    async def start(self) -> None:
        """Subscribe to the confirmations."""
        await self._connection.subscribe(f"{self._inbox}.*", self._on_answer, wait=False)

    def stop(self) -> None:
        """Give up everything that is unconfirmed."""
        self._stopped = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for pending in self._take(lambda _: True):
            pending.settled(b"", BusUnavailable("the connection was closed before the bus answered"))

    def post(self, subject: str, data: bytes, headers: bytes, settled: Settled, resend: bool) -> int:
        """Publish; `settled` is called once. Returns the number under which the message is pending."""
        self._number = number = self._number + 1
        self._add(number, _Pending(subject, data, headers, settled, resend, self._loop.time()))
        self._connection.send(subject, data, f"{self._inbox}.{number}", headers)
        return number

    async def store(
        self,
        subject: str,
        data: bytes,
        msg_id: str,
        expect_last: int | None,
        ttl_s: float,
        headers: Mapping[str, str] | None,
        resend: bool,
        timeout_s: float,
    ) -> int:
        """See `JetStream.store`."""
        fields = dict(headers or {})
        if msg_id:
            fields[reserved.MESSAGE_ID] = msg_id
        if expect_last is not None:
            fields[reserved.EXPECTED_LAST] = str(expect_last)
        if ttl_s:
            fields |= reserved.lifetime(ttl_s)
        future: asyncio.Future[int] = self._loop.create_future()

        def settled(confirmation: bytes, error: QueztlError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(sequence_of(confirmation))
            else:
                future.set_exception(error)

        number = self.post(subject, data, header_block(fields) if fields else b"", settled, resend)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            pending = self._pending.get(number)
            if pending is not None and pending.refused is not None:
                raise pending.refused from None
            raise BusUnavailable(f"the bus did not confirm {subject} within {timeout_s:g} s") from None
        finally:
            self._pending.pop(number, None)

    def refuse(self, prefixes: tuple[str, ...], error: QueztlError) -> None:
        """Give up what waits for its confirmation on a subject that begins with one of `prefixes`, with `error`."""
        for pending in self._take(lambda pending: pending.subject.startswith(prefixes)):
            pending.settled(b"", error)

    def resend_all(self) -> None:
        """After a reconnect: send again what may be sent twice; give up the rest, whose outcome is unknown."""
        now = self._loop.time()
        for pending in self._take(lambda pending: not (pending.resend or pending.not_stored)):
            pending.settled(b"", BusUnavailable("the connection broke before the bus answered"))
        for number, pending in list(self._pending.items()):
            self._resend(number, pending, now)

    def _resend(self, number: int, pending: _Pending, now: float) -> None:
        pending.sent_at, pending.not_stored = now, False
        headers = parse_headers(pending.headers) if pending.headers else {}
        # The mark of a possible second copy. After an unclean restart the server has lost its table of ids, so a node
        # that is given a marked message reads the task's records first.
        headers[RESENT_HEADER] = "1"
        self._connection.send(pending.subject, pending.data, f"{self._inbox}.{number}", header_block(headers))

    def _take(self, selected: Callable[[_Pending], bool]) -> list[_Pending]:
        numbers = [number for number, pending in self._pending.items() if selected(pending)]
        return [self._pending.pop(number) for number in numbers]

    def _on_answer(self, message: Message) -> None:
        pending = self._pending.pop(int(message.subject[self._prefix :]), None)
        if pending is None:
            return
        data = message.data
        if b'"error"' in data:
            self._on_refusal(message, pending)
        elif data:
            pending.settled(data, None)
        elif pending.resend:
            # "No responders": the stream has no leader yet (a restart, an election).
            self._retry_at_next_sweep(message, pending)
        else:
            pending.settled(b"", BusUnavailable(f"no stream takes {pending.subject} right now; try again shortly"))

    def _on_refusal(self, message: Message, pending: _Pending) -> None:
        try:
            error = answer_of(message.data)["error"]
            refused = refusal(error, pending.subject)
        except (BusUnavailable, KeyError, AttributeError):
            pending.settled(b"", BusUnavailable(f"the bus gave an answer about {pending.subject} that can't be read"))
            return
        in_process = error.get("err_code") in IN_PROCESS
        nothing_done = error.get("err_code") in NOTHING_DONE
        if nothing_done or (pending.resend and (in_process or isinstance(refused, NotNow))):
            pending.refused = refused if isinstance(refused, NotNow) else None
            pending.not_stored = nothing_done
            self._retry_at_next_sweep(message, pending)
        else:
            pending.settled(b"", refused)

    def _retry_at_next_sweep(self, message: Message, pending: _Pending) -> None:
        pending.sent_at = self._loop.time() - ANSWER_WITHIN_S + SWEEP_EVERY_S
        self._add(int(message.subject[self._prefix :]), pending)

    def _add(self, number: int, pending: _Pending) -> None:
        """Keep a message until it is confirmed, with the sweep running."""
        self._pending[number] = pending
        if self._sweeper is None and not self._stopped:
            self._sweeper = self._loop.call_later(SWEEP_EVERY_S, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        if not self._pending:
            return
        self._sweeper = self._loop.call_later(SWEEP_EVERY_S, self._sweep)
        if not self._connection.connected:
            return
        now = self._loop.time()
        overdue = [item for item in self._pending.items() if now - item[1].sent_at > ANSWER_WITHIN_S]
        for number, pending in overdue:
            if pending.resend or pending.not_stored:
                self._resend(number, pending, now)
            else:
                del self._pending[number]
                pending.settled(b"", BusUnavailable(f"the bus did not confirm {pending.subject}"))
