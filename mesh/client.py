"""What users hold: `async with Mesh() as mesh: result = await mesh.submit("echo", {"value": 1})`.

Promises: when `accept` (or `start`) returns, the bus holds the task durably; `wait` returns how it really ended;
nothing here keeps state that its loss would lose. The bridge and the command line are built on this class too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import time
from typing import Any

from mesh import subjects
from mesh.bus.client import Bus, Subscription
from mesh.config import LAN, MeshConfig
from mesh.endpoint import bus_urls
from mesh.errors import BusUnavailable, QueztlError, TaskFailed
from mesh.kinds.table import WorkloadType
from mesh.membership.mesh_record import check_wire_version, read_mesh_record_anywhere
from mesh.merge.order import read_order
from mesh.messages import BlobRef, DeadLetter, NodeRecord, TaskEnd, decode_any, decode_node
from mesh.task_states import FINAL
from mesh.tasks import dead_letters, mapping, records
from mesh.tasks import status as viewing
from mesh.tasks.completions import Waiting
from mesh.tasks.submitter import Submitter
from mesh.views import Accepted, SubmitRequest, TaskView

__all__ = ["Mesh", "TaskHandle", "WorkloadType"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskHandle:
    """A task the mesh has accepted."""

    id: str
    kind: str
    mesh: Mesh
    ending: asyncio.Future[TaskEnd] | None = None
    """Made before the task was published; None for a task somebody accepted earlier."""

    async def result(self, timeout_s: float | None = None) -> Any:
        """Its result, once it has one. Raises: TaskFailed, WaitTimeout."""
        return await self.mesh.value(await self.end(timeout_s))

    async def end(self, timeout_s: float | None = None) -> TaskEnd:
        """How it ended. Raises: WaitTimeout."""
        if self.ending is None:
            return await self.mesh.wait(self.id, timeout_s)
        return await self.mesh.waiting.until(self.ending, self.id, timeout_s)

    async def cancel(self) -> TaskView:
        """End it, wherever it is."""
        return await self.mesh.cancel(self.id)


#: How often, and after how long, a merge that was hinted at is looked for.
FOLLOW_TRIES, FOLLOW_AGAIN_S = 10, 0.2


class Mesh:
    """A program's way into a mesh.

    `url`: nats://… of a bus server or http://… of any node's API; None: QUEZTL_URL, else the local node.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        config: MeshConfig = LAN,
        bus: Bus | None = None,
        members: viewing.Members | None = None,
    ) -> None:
        self._url, self._config, self._members = url, config, members
        self._bus, self._owns_bus = bus, bus is None
        self.name = f"c{secrets.token_hex(5)}"
        self._submitter: Submitter | None = None
        self._waiting: Waiting | None = None
        self._watching: Subscription | None = None
        self._following: asyncio.Task[None] | None = None

    # --- its own life -------------------------------------------------------------------------------
    async def __aenter__(self) -> Mesh:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Reach the bus. Raises: BusUnavailable, with what to do; IncompatibleMesh (another wire version)."""
        if self._bus is None:
            self._bus = await Bus.connect(await bus_urls(self._url), name=self.name, config=self._config)
        try:
            if self._owns_bus:
                await _check_mesh(self._bus)
            self._submitter = Submitter(self._bus, self.name)
            self._waiting = Waiting(self._bus, self.name)
            await self._waiting.start()
            self._watching = await self._bus.kv(subjects.KV_MESH).watch(self._on_mesh)
        except BaseException:  # `async with` closes only what it has entered
            await self.close()
            self._watching = self._waiting = None
            if self._owns_bus:
                self._bus = None
            raise

    def _on_mesh(self, key: str) -> None:
        """This mesh may go into another one: then its bus is looked for there, too."""
        if key == subjects.MERGE_KEY and self._following is None:
            self._following = asyncio.create_task(self._follow(), name="follow the mesh")

    async def _follow(self) -> None:
        try:
            # The hint of a change comes before the change can be read everywhere.
            for _ in range(FOLLOW_TRIES):
                order = await read_order(self.bus)
                if order is not None:
                    self.bus.learn(order.urls)
                    return
                await asyncio.sleep(FOLLOW_AGAIN_S)
        except QueztlError:
            return  # the next hint comes with the next step of the merge
        finally:
            self._following = None

    async def close(self) -> None:
        """Stop waiting, and close the connection unless it is somebody else's."""
        if self._following is not None:
            self._following.cancel()
        try:
            # Whether the bus heard of it does not matter any more.
            with contextlib.suppress(BusUnavailable):
                if self._watching is not None:
                    await self._watching.close()
            with contextlib.suppress(BusUnavailable):
                if self._waiting is not None:
                    await self._waiting.stop()
        finally:
            if self._bus is not None and self._owns_bus:
                await self._bus.close()

    @property
    def bus(self) -> Bus:
        """The connection. Raises: RuntimeError before `connect`."""
        if self._bus is None:
            raise RuntimeError("use `async with Mesh() as mesh:` or `await mesh.connect()` first")
        return self._bus

    @property
    def submitter(self) -> Submitter:
        """Publishes this client's tasks. Raises: RuntimeError before `connect`."""
        if self._submitter is None:
            raise RuntimeError("use `async with Mesh() as mesh:` or `await mesh.connect()` first")
        return self._submitter

    @property
    def waiting(self) -> Waiting:
        """This client's open waits. Raises: RuntimeError before `connect`."""
        if self._waiting is None:
            raise RuntimeError("use `async with Mesh() as mesh:` or `await mesh.connect()` first")
        return self._waiting

    # --- submitting ---------------------------------------------------------------------------------
    async def accept(self, request: SubmitRequest) -> Accepted:
        """Check a wish and make it durable.

        Raises: UnknownKind, BadInput (every fault), Conflict, Busy, BusUnavailable, StorageFull.
        """
        return await self.submitter.accept(replace(request, kind=str(request.kind).lower()))

    async def start(self, kind: str, payload: Any = None, **options: Any) -> TaskHandle:
        """Submit without waiting for the result. `options`: see SubmitRequest. Raises: as `accept`."""
        return await self._start(SubmitRequest(kind=str(kind).lower(), payload=payload, **options))

    async def _start(self, request: SubmitRequest) -> TaskHandle:
        if request.idempotency_key:
            accepted = await self.submitter.accept(request)
            return TaskHandle(accepted.id, accepted.kind, self)
        # The future exists before the task does, so an end can't be told before somebody listens.
        task = self.submitter.next_id()
        ending = self.waiting.expect(task)
        try:
            await self.submitter.learn_regions(request)
            prepared = self.submitter.prepare(request, task)
            await self.submitter.publish(prepared)
        except BaseException:
            self.waiting.forget(task)
            raise
        return TaskHandle(task, prepared.task.kind, self, ending)

    async def submit(self, kind: str, payload: Any = None, *, wait_s: float | None = None, **options: Any) -> Any:
        """Submit and return the result: a plain value, or bytes (an encoded image, say).

        Raises: as `accept`; TaskFailed; WaitTimeout after `wait_s` (the task goes on).
        """
        handle = await self.start(kind, payload, **options)
        return await handle.result(wait_s)

    async def submit_workload(
        self, workload_type: WorkloadType | str, payload: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """`submit` under the names REST uses."""
        return await self.submit(workload_type, dict(payload) if payload is not None else None, **options)

    def map(
        self,
        kind: str,
        payloads: Iterable[Any] | AsyncIterator[Any],
        *,
        ordered: bool = True,
        window: int = 256,
        **options: Any,
    ) -> AsyncIterator[mapping.MapItem]:
        """One task a payload; items come in order, or as they end. At most `window` are open at once."""
        client = mapping.MapClient(self.submitter, self.waiting, self.bus.config, self._start, self.value)
        request = SubmitRequest(kind=str(kind).lower(), **options)
        return mapping.run(client, request, payloads, ordered=ordered, window=window)

    # --- looking ------------------------------------------------------------------------------------
    async def status(self, task: str) -> TaskView:
        """All that is known of a task. Raises: NotFound, BusUnavailable."""
        return await viewing.status(self.bus, task, self._members)

    async def end(self, task: str) -> TaskEnd | None:
        """How a task ended; None while it has not."""
        return await records.read_end(self.bus, task)

    async def wait(self, task: str, timeout_s: float | None = None) -> TaskEnd:
        """How a task ended, as soon as it has. Raises: WaitTimeout."""
        return await self.waiting.wait(task, timeout_s)

    async def result(self, task: str, timeout_s: float | None = None) -> Any:
        """A task's result, anybody's task. Raises: NotFound, TaskFailed, WaitTimeout."""
        end = await self.end(task)
        if end is None:
            await self.status(task)
            end = await self.wait(task, timeout_s)
        return await self.value(end)

    async def value(self, end: TaskEnd) -> Any:
        """The value of an end: plain data, or bytes. Raises: TaskFailed; NotFound when its blob is gone."""
        if end.state != "done":
            reason = end.error.message if end.error else end.state
            raise TaskFailed(f"task {end.id} {end.state}: {reason}", end.id, end.state, reason)
        if end.result_ref is not None:
            data = b"".join([chunk async for chunk in await self.bus.objects.open(end.result_ref.blob)])
            return data if end.content_type else decode_any(data)
        return decode_any(end.result) if len(end.result) else None

    def watch(self, task: str) -> AsyncIterator[TaskView]:
        """Each change of a task's state, until it has ended. Raises: NotFound (on the first step)."""
        return viewing.watch(self.bus, task)

    async def cancel(self, task: str) -> TaskView:
        """End a task wherever it is; one that has ended stays as it is. Raises: NotFound."""
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

    async def nodes(self) -> list[NodeRecord]:
        """Every node's record."""
        return [decode_node(entry.value) for entry in await self.bus.kv(subjects.KV_NODES).entries()]

    # --- blobs --------------------------------------------------------------------------------------
    async def put_blob(
        self,
        source: bytes | Path | AsyncIterator[bytes],
        content_type: str = "application/octet-stream",
        keep: bool = False,
    ) -> BlobRef:
        """Upload; the reference goes into payloads as {"blob": id}. Raises: StorageFull."""
        return await self.bus.objects.put(source, content_type, keep)

    async def open_blob(self, blob: str) -> tuple[BlobRef, AsyncIterator[bytes]]:
        """A blob's reference and its bytes. Raises: NotFound."""
        return await self.bus.objects.look(blob)

    # --- dead letters -------------------------------------------------------------------------------
    async def dead_list(self, kind: str = "") -> list[DeadLetter]:
        """The tasks that used up their attempts or are poison. Raises: BadInput for what can be no kind."""
        return await dead_letters.list_all(self.bus, kind)

    async def dead_show(self, task: str) -> DeadLetter:
        """One of them. Raises: NotFound."""
        return await dead_letters.show(self.bus, task)

    async def dead_replay(self, task: str) -> Accepted:
        """Submit it again, as a new task; the dead letter goes. Raises: NotFound, as `accept`."""
        return await dead_letters.replay(self.bus, self.submitter, task)


async def _check_mesh(bus: Bus) -> None:
    """Refuse a mesh of another wire version. Raises: IncompatibleMesh."""
    try:
        record = await read_mesh_record_anywhere(bus)
    except BusUnavailable as error:
        # Every call says so itself; a client that waits for the bus to come back may connect.
        log.debug("the wire version of the mesh could not be read: %s", error)
        return
    if record is not None:
        check_wire_version(record)
