"""Waiting for tasks to end: one subscription for all of a client's own tasks, one more for each foreign task.

The bus republishes what TASKS has *stored* on `task_updates.…`, so the first end that arrives is the valid one. Core
NATS may lose a message (a reconnect, a slow reader). So the end records are read after every reconnect, and
periodically for waits that are old.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.errors import QueztlError, WaitTimeout
from mesh.messages import TaskEnd
from mesh.tasks import records

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription

log = logging.getLogger(__name__)
#: The period of the check of old waits, seconds; a wait is old when an earlier check has seen it.
RECHECK_S = 5.0


class Completions:
    """The task ends that one client waits for."""

    def __init__(self, bus: Bus, submitter: str) -> None:
        self._bus, self._submitter = bus, submitter
        self._waits: dict[str, asyncio.Future[TaskEnd]] = {}
        self._foreign: dict[str, int] = {}
        """Task -> number of `wait` calls, for tasks that were not `expect`ed: they share one future."""
        self._calls: dict[str, Callable[[TaskEnd], None]] = {}
        self._subscription: Subscription | None = None
        self._recheck: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Subscribe to the updates of this client's own tasks. Raises: BusUnavailable."""
        self._subscription = await self._bus.subscribe(subjects.all_task_updates(self._submitter), self._on_update)
        self._bus.on_back.append(self._catch_up)
        self._recheck = asyncio.create_task(self._recheck_old(), name="recheck of old waits")

    async def stop(self) -> None:
        """Unsubscribe and cancel open waits."""
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
        """The future end of one of this client's own tasks. Call it before the task is published: no end is missed."""
        future = self._waits.get(task)
        if future is None:
            future = self._waits[task] = self._loop.create_future()
        return future

    def call(self, task: str, ended: Callable[[TaskEnd], None]) -> None:
        """`expect` for many tasks: `ended` is called once, with the end of one of this client's own tasks."""
        self._calls[task] = ended

    def forget(self, task: str) -> None:
        """Stop waiting for `task`."""
        self._waits.pop(task, None)
        self._calls.pop(task, None)

    async def wait(self, task: str, wait_s: float | None) -> TaskEnd:
        """Wait at most `wait_s` seconds (None: without limit) for the end of any client's task. Raises: WaitTimeout."""
        expected = task in self._waits and task not in self._foreign
        future = self.expect(task)
        if not expected:
            self._foreign[task] = self._foreign.get(task, 0) + 1
        subscription: Subscription | None = None
        try:
            if not expected:
                if not task.startswith(f"{self._submitter}-"):
                    submitter, number = subjects.split_task_id(task)
                    subscription = await self._bus.subscribe(subjects.task_updates(submitter, number), self._on_update)
                try:
                    end = await records.read_end(self._bus, task)
                except QueztlError as error:
                    # `_catch_up` reads it again when the bus is back.
                    log.debug("could not read the end record of %s: %s", task, error)
                    end = None
                if end is not None:
                    return end
            return await self.until(future, task, wait_s)
        finally:
            if subscription is not None:
                await subscription.close()
            if not expected:
                self._foreign[task] -= 1
                if not self._foreign[task]:
                    del self._foreign[task]
                    self.forget(task)

    async def until(self, future: asyncio.Future[TaskEnd], task: str, wait_s: float | None) -> TaskEnd:
        """Wait at most `wait_s` seconds (None: without limit) for a future of `expect`. Raises: WaitTimeout."""
        if wait_s is None:
            return await asyncio.shield(future)
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(future)
        except TimeoutError:
            raise WaitTimeout(f"task {task} has not ended within {wait_s:g} s; it goes on") from None

    def _on_update(self, message: Message) -> None:
        # An update without data is an expiry marker.
        if message.data and message.subject.endswith(".end"):
            _, submitter, number, _ = message.subject.split(".")
            self._on_end(records.end_of(subjects.task_id(submitter, number), message.data))

    def _on_end(self, end: TaskEnd) -> None:
        ended = self._calls.pop(end.id, None)
        if ended is not None:
            ended(end)
        future = self._waits.pop(end.id, None)
        if future is not None and not future.done():
            future.set_result(end)

    async def _catch_up(self) -> None:
        """Read the end records of all waits: updates are lost while the connection is."""
        for end in (await records.read_ends(self._bus, [*self._waits, *self._calls])).values():
            self._on_end(end)

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
                    self._on_end(end)
            except QueztlError as error:
                log.debug("could not recheck %d waits: %s", len(old), error)
