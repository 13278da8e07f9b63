"""Waiting for tasks to end: one subscription for all of a client's own, one more per foreign task.

The bus republishes what TASKS *stored* on `task_updates.…`, so the first end heard is the one that stands. Core NATS
may lose a message (a reconnect, a slow reader): after every reconnect, and for old waits now and then, the records
themselves are read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.errors import QueztlError, WaitTimeout
from mesh.messages import TaskEnd, TaskState, decode_end, decode_state
from mesh.tasks import records

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription

log = logging.getLogger(__name__)
#: A wait this old is checked against the records, once per this period.
RECHECK_S = 5.0

Watcher = Callable[[TaskState | TaskEnd], None]


class Waiting:
    """The ends a client waits for."""

    def __init__(self, bus: Bus, submitter: str) -> None:
        self._bus, self._submitter = bus, submitter
        self._waits: dict[str, asyncio.Future[TaskEnd]] = {}
        self._foreign: dict[str, int] = {}
        """How many `wait` for a task that was not `expect`ed: they share one future."""
        self._calls: dict[str, Callable[[TaskEnd], None]] = {}
        self._watchers: dict[str, list[Watcher]] = {}
        self._subscription: Subscription | None = None
        self._recheck: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Listen for the ends of this client's own tasks."""
        self._subscription = await self._bus.subscribe(subjects.all_task_updates(self._submitter), self._on_told)
        self._bus.on_back.append(self._catch_up)
        self._recheck = asyncio.create_task(self._recheck_old(), name="recheck of old waits")

    async def stop(self) -> None:
        """Stop listening; open waits are cancelled."""
        if self._recheck:
            self._recheck.cancel()
        if self._catch_up in self._bus.on_back:
            self._bus.on_back.remove(self._catch_up)
        try:
            if self._subscription:
                await self._subscription.close()
        finally:
            for future in self._waits.values():
                future.cancel()

    def expect(self, task: str) -> asyncio.Future[TaskEnd]:
        """The future of one of this client's own tasks; made before it is published, so nothing is missed."""
        future = self._waits.get(task)
        if future is None:
            future = self._waits[task] = self._loop.create_future()
        return future

    def call(self, task: str, ended: Callable[[TaskEnd], None]) -> None:
        """`expect` for many: `ended` is called once with the end of one of this client's own tasks."""
        self._calls[task] = ended

    def forget(self, task: str) -> None:
        """Nobody waits for `task` any more."""
        self._waits.pop(task, None)
        self._calls.pop(task, None)

    async def wait(self, task: str, timeout_s: float | None) -> TaskEnd:
        """How `task` ended, anybody's task. Raises: WaitTimeout."""
        mine = task in self._waits and task not in self._foreign
        future = self.expect(task)
        if not mine:
            self._foreign[task] = self._foreign.get(task, 0) + 1
        subscription: Subscription | None = None
        try:
            if not mine:
                if not task.startswith(f"{self._submitter}-"):
                    submitter, number = subjects.split_task_id(task)
                    subscription = await self._bus.subscribe(subjects.task_updates(submitter, number), self._on_told)
                try:
                    end = await records.read_end(self._bus, task)
                except QueztlError as error:
                    # Once the bus is back, everything waited for is read again.
                    log.debug("the end of %s could not be read just now: %s", task, error)
                    end = None
                if end is not None:
                    return end
            return await self.until(future, task, timeout_s)
        finally:
            if subscription is not None:
                await subscription.close()
            if not mine:
                self._foreign[task] -= 1
                if not self._foreign[task]:
                    del self._foreign[task]
                    self.forget(task)

    async def until(self, future: asyncio.Future[TaskEnd], task: str, timeout_s: float | None) -> TaskEnd:
        """What `future` (of `expect`) brings. Raises: WaitTimeout."""
        if timeout_s is None:
            return await asyncio.shield(future)
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise WaitTimeout(f"task {task} has not ended within {timeout_s:g} s; it goes on") from None

    def watch(self, task: str, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called for each state and the end of one of this client's tasks; returns the undo."""
        self._watchers.setdefault(task, []).append(watcher)

        def undo() -> None:
            listeners = self._watchers.get(task, [])
            if watcher in listeners:
                listeners.remove(watcher)
            if not listeners:
                self._watchers.pop(task, None)

        return undo

    def _on_told(self, message: Message) -> None:
        if not message.data:
            return  # a marker: the record's lifetime is over
        if message.subject.endswith(".end"):
            self._ended(decode_end(message.data))
        elif self._watchers:
            state = decode_state(message.data)
            for watcher in list(self._watchers.get(state.id, ())):
                watcher(state)

    def _ended(self, end: TaskEnd) -> None:
        ended = self._calls.pop(end.id, None)
        if ended is not None:
            ended(end)
        future = self._waits.pop(end.id, None)
        if future is not None and not future.done():
            future.set_result(end)
        if self._watchers:
            for watcher in list(self._watchers.get(end.id, ())):
                watcher(end)

    async def _catch_up(self) -> None:
        """Read the records of everything waited for: what was told while we did not hear."""
        for end in (await records.read_ends(self._bus, [*self._waits, *self._calls])).values():
            self._ended(end)

    async def _recheck_old(self) -> None:
        before: set[str] = set()
        while True:
            await asyncio.sleep(RECHECK_S)
            now = {*self._waits, *self._calls}
            old, before = sorted(now & before), now
            if not old or not self._bus.connected:
                continue
            try:
                for end in (await records.read_ends(self._bus, old)).values():
                    self._ended(end)
            except QueztlError as error:
                log.debug("could not recheck %d waits: %s", len(old), error)
