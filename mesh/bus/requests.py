"""Requests over core NATS and their replies: one inbox for all of them; repeatable ones are sent until answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mesh.bus.errors import NobodyAnswers
from mesh.bus.wire import Message
from mesh.errors import BusUnavailable

#: `Connection.send`: (subject, data, reply subject, headers).
Send = Callable[[str, bytes, str, dict[str, str] | None], None]

#: A repeatable request is sent again at this interval, seconds: while bus servers elect a leader nobody answers, and
#: requests sent during the election are never answered.
REPEAT_S = 1.0


class Requests:
    """The unanswered requests of one connection, which delivers `<inbox>.*` to `on_reply`."""

    def __init__(self, send: Send, inbox: str) -> None:
        self._send, self.inbox = send, inbox
        self._number = 0
        self._open: dict[int, asyncio.Future[Message]] = {}
        self._repeatable: dict[int, tuple[str, bytes]] = {}

    async def ask(
        self, subject: str, data: bytes, timeout_s: float, headers: dict[str, str] | None, repeat: bool
    ) -> Message:
        """Send one request and wait for its reply, see `Connection.request`.

        Raises: NobodyAnswers when nobody subscribes to `subject`, BusUnavailable when no reply comes in time.
        """
        self._number = number = self._number + 1
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        if repeat:
            self._repeatable[number] = (subject, data)
        try:
            self._send(subject, data, f"{self.inbox}.{number}", headers)
            async with asyncio.timeout(timeout_s):
                while repeat and not (await asyncio.wait({future}, timeout=REPEAT_S))[0]:
                    self._send(subject, data, f"{self.inbox}.{number}", headers)
                reply = await future
        except TimeoutError:
            raise BusUnavailable(f"the bus did not answer {subject} within {timeout_s:g} s") from None
        finally:
            self._open.pop(number, None)
            self._repeatable.pop(number, None)
        if not reply.data and reply.headers.get("Status") == "503":
            raise NobodyAnswers(f"nobody answers {subject} on the bus")
        return reply

    def repeat(self) -> None:
        """After a reconnect: send all repeatable requests again."""
        for number, (subject, data) in list(self._repeatable.items()):
            self._send(subject, data, f"{self.inbox}.{number}", None)

    def on_reply(self, message: Message) -> None:
        """Take one message to the inbox."""
        number = int(message.subject.rpartition(".")[2]) if message.subject.startswith(self.inbox) else 0
        future = self._open.pop(number, None)
        if future is not None and not future.done():
            future.set_result(message)
