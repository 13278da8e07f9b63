"""`map`: one task a payload, with back-pressure built in.

At most `window` tasks are open at once, so a million payloads need no million futures, and a full queue is waited
out instead of failing the map. Small payloads go out without a task or a future of their own: callbacks only.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any

from mesh.errors import Busy, QueztlError
from mesh.messages import CLAIM_CHECK_BYTES, TaskEnd, decode_any
from mesh.tasks.validation import Prepared, open_envelope
from mesh.views import SubmitRequest

if TYPE_CHECKING:
    from mesh.client import Mesh


#: The window is filled up again when this part of it is free: submitted one by one as results come, small tasks cost
#: submitter, bus and node a wake-up each, several times what they cost together.
REFILL_SHARE = 16
_END: Any = object()


@dataclass(frozen=True, slots=True)
class MapItem:
    """One payload's outcome."""

    index: int
    task: str
    result: Any = None
    error: QueztlError | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.error is None


async def run(
    mesh: Mesh,
    kind: str,
    payloads: Iterable[Any] | AsyncIterator[Any],
    ordered: bool,
    window: int,
    options: dict[str, Any],
) -> AsyncIterator[MapItem]:
    """See `Mesh.map`. Raises: UnknownKind, BadInput for wrong options; a bad payload is its item's error."""
    if window < 1:
        raise ValueError("window must be at least 1")
    request = SubmitRequest(kind=str(kind).lower(), **options)
    await mesh.submitter.learn_regions(request)
    mapping = _Mapping(mesh, request)
    source = _Source(payloads, mapping.news)
    held: dict[int, MapItem] = {}
    wanted = 0
    refill = window - max(1, window // REFILL_SHARE)
    try:
        while True:
            # What ended and was not taken counts too: else a source that tasks outrun is read without end.
            filling = mapping.unread + len(held) <= refill
            while filling and mapping.unread + len(held) < window and source.poll():
                await mapping.send(source.take())
            if source.exhausted and not mapping.unread and not held:
                return
            for item in await mapping.take():
                if not ordered:
                    yield item
                    continue
                held[item.index] = item
            while wanted in held:
                yield held.pop(wanted)
                wanted += 1
    finally:
        source.close()
        mapping.close()


class _Source:
    """The payloads. An asynchronous one is asked for its next payload while the map goes on with what has ended."""

    def __init__(self, payloads: Iterable[Any] | AsyncIterator[Any], news: asyncio.Event) -> None:
        self._slow = aiter(payloads) if hasattr(payloads, "__aiter__") else None
        self._quick = iter(()) if self._slow is not None else iter(payloads)
        self._news = news
        self._asked: asyncio.Task[Any] | None = None
        self._next: Any = _END
        self.exhausted = False

    def poll(self) -> bool:
        """Whether there is a payload now; `news` is set as soon as it is worth asking again. Raises: its errors."""
        if self.exhausted:
            return False
        if self._slow is None:
            self._next = next(self._quick, _END)
        else:
            if self._asked is None:
                self._asked = asyncio.create_task(self._ask(self._slow), name="map payload")
                self._asked.add_done_callback(lambda _: self._news.set())
            if not self._asked.done():
                return False
            asked, self._asked = self._asked, None
            self._next = asked.result()
        self.exhausted = self._next is _END
        return not self.exhausted

    @staticmethod
    async def _ask(source: AsyncIterator[Any]) -> Any:
        return await anext(source, _END)

    def take(self) -> Any:
        """The payload that `poll` found."""
        return self._next

    def close(self) -> None:
        """Ask for no more."""
        if self._asked is not None and not self._asked.cancel() and not self._asked.cancelled():
            self._asked.exception()  # of a payload that nobody wants any more


class _Mapping:
    """The open items of one map."""

    def __init__(self, mesh: Mesh, request: SubmitRequest) -> None:
        self._mesh, self._submitter, self._waiting = mesh, mesh.submitter, mesh.waiting
        self._envelope = open_envelope(request, mesh.bus.config, mesh.submitter.regions, mesh.submitter.places)
        self._request = request
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._tasks: dict[str, int] = {}
        """Open tasks that go without an asyncio task: id -> index."""
        self._slow: set[asyncio.Task[None]] = set()
        self.news = asyncio.Event()
        self.open = 0
        self.ready: deque[tuple[int, str, TaskEnd | QueztlError | Any]] = deque()

    async def send(self, payload: Any) -> None:
        """Submit one more payload."""
        index, self._number = self._number, self._number + 1
        self.open += 1
        task = self._submitter.next_id()
        try:
            prepared = self._envelope.seal(payload, task, time())
        except QueztlError as error:
            self._end(index, task, error)
            return
        if not self._submitter.declared(prepared.lane):
            try:
                await self._submitter.ensure_lane(prepared.lane, prepared.task.requires)
            except QueztlError as error:
                self._end(index, task, error)
                return
        large = len(prepared.task.payload) > CLAIM_CHECK_BYTES
        if large or prepared.delay_s or prepared.task.blobs or self._request.idempotency_key:
            slow = asyncio.create_task(self._send_slowly(index, payload), name=f"map item {index}")
            self._slow.add(slow)
            slow.add_done_callback(self._slow.discard)
            return
        self._tasks[task] = index
        self._waiting.call(task, self._ended)
        self._post(prepared)

    def _post(self, prepared: Prepared) -> None:
        def settled(_: bytes, error: QueztlError | None) -> None:
            if error is None or prepared.task.id not in self._tasks:
                return
            if isinstance(error, Busy):
                self._loop.call_later(error.retry_after_s, self._post, prepared)
                return
            self._waiting.forget(prepared.task.id)
            self._end(self._tasks.pop(prepared.task.id), prepared.task.id, error)

        if prepared.task.id in self._tasks:
            self._submitter.post(prepared, settled)

    def _ended(self, end: TaskEnd) -> None:
        index = self._tasks.pop(end.id, None)
        if index is not None:
            self._end(index, end.id, end)

    async def _send_slowly(self, index: int, payload: Any) -> None:
        """What needs a blob, a delay or a claim first."""
        options = {
            name: getattr(self._request, name)
            for name in self._request.__dataclass_fields__
            if name not in ("kind", "payload")
        }
        task = ""
        while True:
            try:
                handle = await self._mesh.start(self._request.kind, payload, **options)
                task = handle.id
                self._end(index, task, await handle.end())
                return
            except Busy as error:
                if task:
                    self._end(index, task, error)
                    return
                await asyncio.sleep(error.retry_after_s)
            except QueztlError as error:
                self._end(index, task, error)
                return

    def _end(self, index: int, task: str, outcome: TaskEnd | QueztlError) -> None:
        self.open -= 1
        self.ready.append((index, task, outcome))
        self.news.set()

    @property
    def unread(self) -> int:
        """Payloads that were sent and whose outcome was not taken."""
        return self.open + len(self.ready)

    async def take(self) -> list[MapItem]:
        """What has ended since the last call, maybe nothing; waits for news."""
        await self.news.wait()
        self.news.clear()
        items = []
        while self.ready:
            index, task, outcome = self.ready.popleft()
            items.append(await self._item(index, task, outcome))
        return items

    async def _item(self, index: int, task: str, outcome: TaskEnd | QueztlError) -> MapItem:
        if isinstance(outcome, QueztlError):
            return MapItem(index, task, error=outcome)
        if outcome.state == "done" and outcome.result_ref is None:
            return MapItem(index, task, decode_any(outcome.result) if len(outcome.result) else None)
        try:
            return MapItem(index, task, await self._mesh.value(outcome))
        except QueztlError as error:
            return MapItem(index, task, error=error)

    def close(self) -> None:
        """Stop waiting for what is still open; the tasks themselves go on."""
        for task in self._tasks:
            self._waiting.forget(task)
        self._tasks.clear()
        for slow in self._slow:
            slow.cancel()
