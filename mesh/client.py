"""The Python API of a mesh: `async with Mesh() as mesh: result = await mesh.submit("echo", {"value": 1})`.

When `accept` or `start` returns, the bus holds the task durably; `wait` returns how the task really ended. The client
keeps no state whose loss would lose a task. The REST bridge and the command line are built on this class too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from time import time
from typing import Any

from mesh import decoding, subjects
from mesh.client_stores import ClientStores
from mesh.kinds.table import WorkloadType
from mesh.messages import TaskEnd
from mesh.scheduling import placement
from mesh.task_states import FINAL
from mesh.tasks import mapping, records
from mesh.tasks import status as task_status
from mesh.tasks.mapping import MapItem
from mesh.views import Accepted, SubmitRequest, TaskView

__all__ = ["Mesh", "TaskHandle", "WorkloadType"]


@dataclass(frozen=True)
class TaskHandle:
    """A task that the mesh has accepted."""

    id: str
    kind: str
    mesh: Mesh
    ending: asyncio.Future[TaskEnd] | None = None
    """Resolves with the end of the task. None for a task that was accepted earlier, under its idempotency key."""

    async def result(self, wait_s: float | None = None) -> Any:
        """Wait at most `wait_s` seconds (None: without limit) for the result: plain data, or bytes.

        Raises: TaskFailed; WaitTimeout (the task goes on); NotFound when the blob of the result is gone.
        """
        return await self.mesh.value(await self.end(wait_s))

    async def end(self, wait_s: float | None = None) -> TaskEnd:
        """Wait at most `wait_s` seconds for the end record, whatever the final state. Raises: WaitTimeout."""
        if self.ending is None:
            return await self.mesh.wait(self.id, wait_s)
        return await self.mesh.completions.until(self.ending, self.id, wait_s)

    async def cancel(self) -> TaskView:
        """End the task, wherever it is. Raises: as `Mesh.cancel`."""
        return await self.mesh.cancel(self.id)


class Mesh(ClientStores):
    """A client of a mesh.

    `url`: nats://HOST:PORT of a bus server, or http://HOST:PORT of any node's API. None: the environment variable
    QUEZTL_URL, else the node on this machine.

    The methods that submit take the same options:

    - `requires`: what a node must have: cores, memory_mb, accelerator, gpu_memory_mb, labels, region, node
    - `urgency`: "high", "normal" or "low"
    - `timeout_s`: longest run time of one attempt, seconds; 0: the default of the kind
    - `max_attempts`: 1 to 100; None: the default of the mesh
    - `delay_s`: start no earlier than this many seconds from now
    - `expires_s`: expire if not started within this many seconds (after the delay); 0: never
    - `idempotency_key`: submitting again with the same key, kind and payload returns the first task
    - `origin`: where the work comes from: a region, or "LATITUDE,LONGITUDE" in degrees

    `wait_s` is how long the caller waits, seconds; the task goes on afterwards. None: without limit.
    """

    # --- submitting ---------------------------------------------------------------------------------
    async def accept(self, request: SubmitRequest) -> Accepted:
        """Validate a request and make it durable.

        Raises: UnknownKind; BadInput with every fault; Conflict (the idempotency key stands for another task);
        Busy (the queue is full); StorageFull; BusUnavailable.
        """
        request = replace(request, kind=_kind_name(request.kind))
        accepted = await self.submitter.accept(request)
        if self._members is None:
            return accepted  # a client would have to read the records of all nodes: see `warnings`
        return replace(accepted, warnings=placement.warnings(request.requires, request.kind, self._members()))

    async def start(
        self,
        kind: str,
        payload: Any = None,
        *,
        requires: dict[str, Any] | None = None,
        urgency: str = "normal",
        timeout_s: float = 0.0,
        max_attempts: int | None = None,
        delay_s: float = 0.0,
        expires_s: float = 0.0,
        idempotency_key: str = "",
        origin: str = "",
    ) -> TaskHandle:
        """Submit a task and return its handle without waiting for the result. Raises: as `accept`."""
        request = SubmitRequest(
            _kind_name(kind), payload, requires if requires is not None else {}, urgency, timeout_s,
            max_attempts, delay_s, expires_s, idempotency_key, origin,
        )  # fmt: skip
        return await self._start(request)

    async def _start(self, request: SubmitRequest) -> TaskHandle:
        if request.idempotency_key:
            accepted = await self.submitter.accept(request)
            return TaskHandle(accepted.id, accepted.kind, self)
        # The future exists before the task does, so the end can't be published before somebody listens.
        task = self.submitter.next_id()
        ending = self.completions.expect(task)
        try:
            await self.submitter.learn_regions(request)
            prepared = self.submitter.prepare(request, task)
            await self.submitter.publish(prepared)
        except BaseException:
            self.completions.forget(task)
            raise
        return TaskHandle(task, prepared.task.kind, self, ending)

    async def submit(
        self,
        kind: str,
        payload: Any = None,
        *,
        wait_s: float | None = None,
        requires: dict[str, Any] | None = None,
        urgency: str = "normal",
        timeout_s: float = 0.0,
        max_attempts: int | None = None,
        delay_s: float = 0.0,
        expires_s: float = 0.0,
        idempotency_key: str = "",
        origin: str = "",
    ) -> Any:
        """Submit a task, wait for it at most `wait_s` seconds, and return its result: plain data, or bytes.

        Raises: as `accept`; TaskFailed; WaitTimeout (the task goes on).
        """
        handle = await self.start(
            kind, payload, requires=requires, urgency=urgency, timeout_s=timeout_s, max_attempts=max_attempts,
            delay_s=delay_s, expires_s=expires_s, idempotency_key=idempotency_key, origin=origin,
        )  # fmt: skip
        return await handle.result(wait_s)

    async def submit_workload(
        self,
        workload_type: WorkloadType | str,
        payload: Mapping[str, Any] | None = None,
        *,
        wait_s: float | None = None,
        requires: dict[str, Any] | None = None,
        urgency: str = "normal",
        timeout_s: float = 0.0,
        max_attempts: int | None = None,
        delay_s: float = 0.0,
        expires_s: float = 0.0,
        idempotency_key: str = "",
        origin: str = "",
    ) -> Any:
        """`submit` under the names that REST uses. Raises: as `submit`."""
        return await self.submit(
            workload_type, dict(payload) if payload is not None else None, wait_s=wait_s, requires=requires,
            urgency=urgency, timeout_s=timeout_s, max_attempts=max_attempts, delay_s=delay_s, expires_s=expires_s,
            idempotency_key=idempotency_key, origin=origin,
        )  # fmt: skip

    def map(
        self,
        kind: str,
        payloads: Iterable[Any] | AsyncIterable[Any],
        *,
        ordered: bool = True,
        window: int = 256,
        requires: dict[str, Any] | None = None,
        urgency: str = "normal",
        timeout_s: float = 0.0,
        max_attempts: int | None = None,
        delay_s: float = 0.0,
        expires_s: float = 0.0,
        idempotency_key: str = "",
        origin: str = "",
    ) -> AsyncIterator[MapItem]:
        """Submit one task per payload and yield the outcomes: in the order of the payloads, or as tasks end.

        At most `window` tasks are open at once; `payloads` is read no further. A task that fails, and a payload that
        is not valid, is the error of its item.
        Raises: UnknownKind; BadInput for wrong options; ValueError for a window below 1; whatever `payloads` raises.
        """
        request = SubmitRequest(
            _kind_name(kind), None, requires if requires is not None else {}, urgency, timeout_s,
            max_attempts, delay_s, expires_s, idempotency_key, origin,
        )  # fmt: skip
        client = mapping.MapClient(self.submitter, self.completions, self.bus.config, self._start, self.value)
        return mapping.run(client, request, payloads, ordered=ordered, window=window)

    # --- tasks --------------------------------------------------------------------------------------
    async def status(self, task: str) -> TaskView:
        """All that is known of a task. Raises: NotFound, BusUnavailable."""
        return await task_status.status(self.bus, task, self._members)

    async def end(self, task: str) -> TaskEnd | None:
        """The end record of a task; None while it has not ended. Raises: BusUnavailable."""
        return await records.read_end(self.bus, task)

    async def wait(self, task: str, wait_s: float | None = None) -> TaskEnd:
        """Wait at most `wait_s` seconds for the end record of a task, whoever submitted it.

        Raises: WaitTimeout; BusUnavailable.
        """
        return await self.completions.wait(task, wait_s)

    async def result(self, task: str, wait_s: float | None = None) -> Any:
        """Wait at most `wait_s` seconds for the result of a task, whoever submitted it: plain data, or bytes.

        Raises: NotFound; TaskFailed; ResultUnreadable; WaitTimeout; BusUnavailable.
        """
        end = await self.end(task)
        if end is None:
            await self.status(task)
            end = await self.wait(task, wait_s)
        return await self.value(end)

    async def value(self, end: TaskEnd) -> Any:
        """The result in an end record: plain data, or bytes.

        Raises: TaskFailed; NotFound when its blob is gone; ResultUnreadable.
        """
        if end.state != "done":
            raise task_status.failure(end)
        if end.result_ref is not None:
            data = b"".join([chunk async for chunk in await self.bus.objects.open(end.result_ref.blob)])
            return data if end.content_type else decoding.result(data)
        return decoding.result(end.result)

    def watch(self, task: str) -> AsyncIterator[TaskView]:
        """The task as it is now and after each change, until it has ended. Raises: NotFound (on the first step)."""
        return task_status.watch(self.bus, task)

    async def cancel(self, task: str) -> TaskView:
        """End a task, wherever it is; one that has ended stays as it is. Raises: NotFound, BusUnavailable."""
        view = await self.status(task)
        if view.state in FINAL:
            return view
        end = TaskEnd(
            id=view.id,
            kind=view.kind,
            state="cancelled",
            node=view.node,
            attempt=view.attempt,
            submitted_at=view.submitted_at,
            started_at=view.started_at,
            ended_at=time(),
        )
        await records.write_end(self.bus, end)
        await records.remove_waiting(self.bus, view.id)
        self.bus.send(subjects.cancel(view.id), b"")
        return await self.status(view.id)


def _kind_name(kind: object) -> str:
    """Kinds are case-insensitive; what is not a text is refused later, as an unknown kind."""
    return str(kind).lower()
