"""Questions to the bus and their answers: one inbox for all; what may be asked twice is, when no answer comes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from mesh.bus.errors import NOT_YET, ApiError, NobodyAnswers
from mesh.errors import BusUnavailable

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message


#: While a group of bus servers elects its leader nobody answers, and what was asked then is never answered.
REPEAT_S = 1.0
#: Asked again so soon where the answer was "not yet".
NOT_YET_S = 0.25


class Requests:
    """The requests of one connection that are not answered yet."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._box = bus.new_inbox()
        self._number = 0
        self._open: dict[int, asyncio.Future[Message]] = {}
        self._repeatable: dict[int, tuple[str, bytes]] = {}

    async def start(self) -> None:
        """Listen for answers."""
        await self._bus.subscribe(f"{self._box}.*", self._on_reply, wait=False)

    async def ask(
        self, subject: str, data: bytes, timeout_s: float, headers: dict[str, str] | None, repeat: bool
    ) -> Message:
        """See `Bus.request`."""
        self._number = number = self._number + 1
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        if repeat:
            self._repeatable[number] = (subject, data)
        try:
            self._bus.send(subject, data, f"{self._box}.{number}", headers)
            async with asyncio.timeout(timeout_s):
                while repeat and not (await asyncio.wait({future}, timeout=REPEAT_S))[0]:
                    self._bus.send(subject, data, f"{self._box}.{number}", headers)
                answer = await future
        except TimeoutError:
            raise BusUnavailable(f"the bus did not answer {subject} within {timeout_s:g} s") from None
        finally:
            self._open.pop(number, None)
            self._repeatable.pop(number, None)
        if not answer.data and answer.headers and answer.headers.get("Status") == "503":
            raise NobodyAnswers(f"nobody answers {subject} on the bus")
        return answer

    async def call(self, endpoint: str, body: dict[str, Any] | None, timeout_s: float, repeat: bool) -> dict[str, Any]:
        """See `Bus.api`. A refusal for want of a leader is no answer yet: that is over within seconds."""
        data, clock = json.dumps(body).encode() if body is not None else b"", asyncio.get_running_loop().time
        subject, deadline = f"$JS.API.{endpoint}", clock() + timeout_s
        while True:
            try:
                answer = await self.ask(subject, data, max(0.01, deadline - clock()), None, repeat)
            except NobodyAnswers:
                if not repeat or clock() + NOT_YET_S > deadline:
                    raise
            else:
                document = json.loads(answer.data)
                error = document.get("error")
                if error is None:
                    return dict(document)
                if error.get("err_code") != NOT_YET:
                    raise ApiError(error.get("code", 0), error.get("err_code", 0), error.get("description", ""))
                if clock() + NOT_YET_S > deadline:
                    raise BusUnavailable("the bus has no leader right now; try again in some seconds")
            await asyncio.sleep(NOT_YET_S)

    def repeat(self) -> None:
        """After a reconnect: ask again what may be asked twice."""
        for number, (subject, data) in list(self._repeatable.items()):
            self._bus.send(subject, data, f"{self._box}.{number}")

    def _on_reply(self, message: Message) -> None:
        number = int(message.subject.rpartition(".")[2]) if message.subject.startswith(self._box) else 0
        future = self._open.pop(number, None)
        if future is not None and not future.done():
            future.set_result(message)
