"""`map`: one task per payload, with back-pressure.

At most `window` tasks are open at once, so a million payloads need no million futures. A full queue delays the map
instead of failing it. A small payload costs no asyncio task and no future of its own, only callbacks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from time import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from mesh import decoding
from mesh.errors import Busy, QueztlError
from mesh.messages import CLAIM_CHECK_BYTES, TaskEnd
from mesh.tasks.validation import Prepared, open_envelope
from mesh.views import SubmitRequest

if TYPE_CHECKING:
    from mesh.config import MeshConfig
    from mesh.tasks.completions import Completions
    from mesh.tasks.submitter import Submitter


#: The window is refilled when this part of it is free. Refilling it one task at a time, as results come in, costs
#: submitter, bus and node a wake-up per task: several times the cost of the small tasks themselves.
REFILL_SHARE = 16
_EXHAUSTED: Any = object()


class MapItem(msgspec.Struct, frozen=True):
    """The outcome of one payload."""

    index: int
    """Position of the payload, from 0."""
    task: str
    """Id of its task."""
    result: Any = None
    """Plain data, or bytes; None when there is an error."""
    error: QueztlError | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.error is None


class StartedTask(Protocol):
    """A task that was submitted."""

    @property
    def id(self) -> str:
        """Its task id."""
        ...

    async def end(self) -> TaskEnd:
        """How it ended."""
        ...


@dataclass(frozen=True, slots=True)
class MapClient:
    """What a map uses of the client that runs it."""

    submitter: Submitter
    completions: Completions
    config: MeshConfig
    start: Callable[[SubmitRequest], Awaitable[StartedTask]]
    """Submits one task the long way: with blobs, a delay or an idempotency key."""
    value: Callable[[TaskEnd], Awaitable[Any]]
    """The value of an end. Raises: TaskFailed, NotFound."""


async def run(
    client: MapClient,
    request: SubmitRequest,
    payloads: Iterable[Any] | AsyncIterable[Any],
    *,
    ordered: bool,
    window: int,
) -> AsyncIterator[MapItem]:
    """Submit `request` once per payload and yield the outcomes; see `mesh.client.Mesh.map`.

    Raises: UnknownKind, BadInput for wrong options, ValueError for a window below 1, and whatever `payloads` raises.
    A bad payload is the error of its item.
    """
    if window < 1:
        raise ValueError("window must be at least 1")
    await client.submitter.learn_regions(request)
    items = _OpenItems(client, request)
    source = _PayloadSource(payloads, items.changed)
    held: dict[int, MapItem] = {}
    next_index = 0
    refill = window - max(1, window // REFILL_SHARE)
    try:
        while True:
            # Outcomes that the caller has not taken count too: otherwise a slow caller lets the source run ahead.
            filling = items.pending + len(held) <= refill
            while filling and items.pending + len(held) < window and source.poll():
                await items.send(source.take())
            if source.exhausted and not items.pending and not held:
                return
            for item in await items.take():
                if not ordered:
                    yield item
                    continue
                held[item.index] = item
            while next_index in held:
                yield held.pop(next_index)
                next_index += 1
    finally:
        source.close()
        items.close()


class _PayloadSource:
    """The payloads. An asynchronous source is asked for its next payload while the map handles finished tasks."""

    def __init__(self, payloads: Iterable[Any] | AsyncIterable[Any], changed: asyncio.Event) -> None:
        self._async: AsyncIterator[Any] | None = None
        self._sync: Iterator[Any] = iter(())
        if isinstance(payloads, AsyncIterable):
            self._async = aiter(payloads)
        else:
            self._sync = iter(payloads)
        self._changed = changed
        self._request: asyncio.Task[Any] | None = None
        self._next: Any = _EXHAUSTED
        self.exhausted = False

    def poll(self) -> bool:
        """Whether a payload is ready; `changed` is set when it is worth polling again. Raises: the source's errors."""
        if self.exhausted:
            return False
        if self._async is None:
            self._next = next(self._sync, _EXHAUSTED)
        else:
            if self._request is None:
                self._request = asyncio.create_task(self._read(self._async), name="map payload")
                self._request.add_done_callback(lambda _: self._changed.set())
            if not self._request.done():
                return False
            done, self._request = self._request, None
            self._next = done.result()
        self.exhausted = self._next is _EXHAUSTED
        return not self.exhausted

    @staticmethod
    async def _read(source: AsyncIterator[Any]) -> Any:
        return await anext(source, _EXHAUSTED)

    def take(self) -> Any:
        """The payload that `poll` found."""
        return self._next

    def close(self) -> None:
        """Stop reading the source."""
        if self._request is not None and not self._request.cancel() and not self._request.cancelled():
            self._request.exception()  # nobody takes this payload any more: mark its error as retrieved


class _OpenItems:
    """The items of one map that were sent and whose outcome the caller has not taken."""

    def __init__(self, client: MapClient, request: SubmitRequest) -> None:
        self._client, self._request = client, request
        self._submitter, self._completions = client.submitter, client.completions
        self._envelope = open_envelope(request, client.config, self._submitter.regions, self._submitter.places)
        self._loop = asyncio.get_running_loop()
        self._sent = 0
        self._indexes: dict[str, int] = {}
        """Open tasks that run on callbacks alone: id -> index."""
        self._started: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()
        self._open = 0
        self._ended: deque[tuple[int, str, TaskEnd | QueztlError]] = deque()

    async def send(self, payload: Any) -> None:
        """Submit the next payload."""
        index, self._sent = self._sent, self._sent + 1
        self._open += 1
        task = self._submitter.next_id()
        try:
            prepared = self._envelope.seal(payload, task, time())
        except QueztlError as error:
            self._finish(index, task, error)
            return
        if not self._submitter.declared(prepared.lane):
            try:
                await self._submitter.ensure_lane(prepared.lane, prepared.task.requires)
            except QueztlError as error:
                self._finish(index, task, error)
                return
        large = len(prepared.task.payload) > CLAIM_CHECK_BYTES
        if large or prepared.delay_s or prepared.task.blobs or self._request.idempotency_key:
            started = asyncio.create_task(self._start(index, payload), name=f"map item {index}")
            self._started.add(started)
            started.add_done_callback(self._started.discard)
            return
        self._indexes[task] = index
        self._completions.call(task, self._on_end)
        self._post(prepared)

    def _post(self, prepared: Prepared) -> None:
        def settled(_: bytes, error: QueztlError | None) -> None:
            if error is None or prepared.task.id not in self._indexes:
                return
            if isinstance(error, Busy):
                self._loop.call_later(error.retry_after_s, self._post, prepared)
                return
            self._completions.forget(prepared.task.id)
            self._finish(self._indexes.pop(prepared.task.id), prepared.task.id, error)

        if prepared.task.id in self._indexes:
            self._submitter.post(prepared, settled)

    def _on_end(self, end: TaskEnd) -> None:
        index = self._indexes.pop(end.id, None)
        if index is not None:
            self._finish(index, end.id, end)

    async def _start(self, index: int, payload: Any) -> None:
        """Submit a payload that needs a blob, a delay or an idempotency key first, and wait for its end."""
        while True:
            try:
                started = await self._client.start(replace(self._request, payload=payload))
                break
            except Busy as error:
                await asyncio.sleep(error.retry_after_s)
            except QueztlError as error:
                self._finish(index, "", error)
                return
        try:
            self._finish(index, started.id, await started.end())
        except QueztlError as error:
            self._finish(index, started.id, error)

    def _finish(self, index: int, task: str, outcome: TaskEnd | QueztlError) -> None:
        self._open -= 1
        self._ended.append((index, task, outcome))
        self.changed.set()

    @property
    def pending(self) -> int:
        """Payloads that were sent and whose outcome was not taken."""
        return self._open + len(self._ended)

    async def take(self) -> list[MapItem]:
        """Wait for a change, then return the items that ended since the last call; possibly none."""
        await self.changed.wait()
        self.changed.clear()
        items = []
        while self._ended:
            index, task, outcome = self._ended.popleft()
            items.append(await self._item(index, task, outcome))
        return items

    async def _item(self, index: int, task: str, outcome: TaskEnd | QueztlError) -> MapItem:
        if isinstance(outcome, QueztlError):
            return MapItem(index, task, error=outcome)
        try:
            if outcome.state == "done" and outcome.result_ref is None:
                return MapItem(index, task, decoding.result(outcome.result))
            return MapItem(index, task, await self._client.value(outcome))
        except QueztlError as error:
            return MapItem(index, task, error=error)

    def close(self) -> None:
        """Stop waiting for what is still open; the tasks themselves go on."""
        for task in self._indexes:
            self._completions.forget(task)
        self._indexes.clear()
        for started in self._started:
            started.cancel()
