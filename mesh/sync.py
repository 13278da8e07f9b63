"""The synchronous twin of `mesh.client.Mesh`, for scripts:

    with SyncMesh() as mesh:
        print(mesh.submit("crypto_mining", {"seconds": 1}))
        handle = mesh.start("echo", {"value": 1, "sleep_s": 5})
        print(mesh.status(handle.id).state, handle.result())
        for item in mesh.map("echo", ({"value": n} for n in range(1000))):
            print(item.index, item.result)

One background thread runs the connection; any number of threads may call. Ctrl-C ends only the call that it
interrupts. Errors are the same as those of `Mesh`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.kinds.table import WorkloadType
from mesh.messages import BlobRef, DeadLetter, NodeRecord, TaskEnd
from mesh.sync_connection import SyncConnection, read_in_thread
from mesh.tasks.listing import DEFAULT_LIMIT
from mesh.tasks.mapping import MapItem
from mesh.views import Accepted, DeadPage, SubmitRequest, TaskFilter, TaskPage, TaskSummary, TaskView

__all__ = ["SyncMesh", "SyncTaskHandle", "WorkloadType"]


@dataclass(frozen=True)
class SyncTaskHandle:
    """A task that the mesh has accepted; see `mesh.client.TaskHandle`."""

    id: str
    kind: str
    mesh: SyncMesh

    def result(self, wait_s: float | None = None) -> Any:
        """Wait at most `wait_s` seconds (None: without limit) for the result: plain data, or bytes."""
        return self.mesh.value(self.end(wait_s))

    def end(self, wait_s: float | None = None) -> TaskEnd:
        """Wait at most `wait_s` seconds for the end record, whatever the final state."""
        return self.mesh.wait(self.id, wait_s)

    def cancel(self) -> TaskView:
        """End the task, wherever it is."""
        return self.mesh.cancel(self.id)


class SyncMesh(SyncConnection):
    """The blocking client of a mesh: the methods of `mesh.client.Mesh`, with the same options, results and errors."""

    # --- submitting ---------------------------------------------------------------------------------
    def accept(self, request: SubmitRequest) -> Accepted:
        """Validate a request and make it durable."""
        return self._call(self.mesh.accept(request))

    def start(
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
    ) -> SyncTaskHandle:
        """Submit a task and return its handle without waiting for the result."""
        call = self.mesh.start(
            kind, payload, requires=requires, urgency=urgency, timeout_s=timeout_s,
            max_attempts=max_attempts, delay_s=delay_s, expires_s=expires_s, idempotency_key=idempotency_key,
            origin=origin,
        )  # fmt: skip
        handle = self._call(call)
        return SyncTaskHandle(handle.id, handle.kind, self)

    def submit(
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
        """Submit a task, wait for it at most `wait_s` seconds, and return its result: plain data, or bytes."""
        call = self.mesh.submit(
            kind, payload, wait_s=wait_s, requires=requires, urgency=urgency, timeout_s=timeout_s,
            max_attempts=max_attempts, delay_s=delay_s, expires_s=expires_s, idempotency_key=idempotency_key,
            origin=origin,
        )  # fmt: skip
        return self._call(call)

    def submit_workload(
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
        """`submit` under the names that REST uses."""
        call = self.mesh.submit_workload(
            workload_type, payload, wait_s=wait_s, requires=requires, urgency=urgency, timeout_s=timeout_s,
            max_attempts=max_attempts, delay_s=delay_s, expires_s=expires_s, idempotency_key=idempotency_key,
            origin=origin,
        )  # fmt: skip
        return self._call(call)

    def map(
        self,
        kind: str,
        payloads: Iterable[Any],
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
    ) -> Iterator[MapItem]:
        """Submit one task per payload and yield the outcomes: in the order of the payloads, or as tasks end.

        `payloads` is read in a thread of its own, so it may use this mesh too.
        """
        items = self.mesh.map(
            kind, read_in_thread(payloads), ordered=ordered, window=window,
            requires=requires, urgency=urgency, timeout_s=timeout_s,
            max_attempts=max_attempts, delay_s=delay_s, expires_s=expires_s, idempotency_key=idempotency_key,
            origin=origin,
        )  # fmt: skip
        return self._iterate(items)

    # --- tasks --------------------------------------------------------------------------------------
    def status(self, task: str) -> TaskView:
        """All that is known of a task."""
        return self._call(self.mesh.status(task))

    def end(self, task: str) -> TaskEnd | None:
        """The end record of a task; None while it has not ended."""
        return self._call(self.mesh.end(task))

    def wait(self, task: str, wait_s: float | None = None) -> TaskEnd:
        """Wait at most `wait_s` seconds for the end record of a task, whoever submitted it."""
        return self._call(self.mesh.wait(task, wait_s))

    def result(self, task: str, wait_s: float | None = None) -> Any:
        """Wait at most `wait_s` seconds for the result of a task, whoever submitted it: plain data, or bytes."""
        return self._call(self.mesh.result(task, wait_s))

    def value(self, end: TaskEnd) -> Any:
        """The result in an end record: plain data, or bytes."""
        return self._call(self.mesh.value(end))

    def watch(self, task: str) -> Iterator[TaskView]:
        """The task as it is now and after each change, until it has ended."""
        return self._iterate(self.mesh.watch(task))

    def cancel(self, task: str) -> TaskView:
        """End a task, wherever it is; one that has ended stays as it is."""
        return self._call(self.mesh.cancel(task))

    def task_page(self, filters: TaskFilter, limit: int = DEFAULT_LIMIT, after: str = "") -> TaskPage:
        """A part of the list of tasks. `after`: the `next` of the page before."""
        return self._call(self.mesh.task_page(filters, limit, after))

    def tasks(
        self, *, state: str = "", kind: str = "", node: str = "", min_age_s: float = 0.0
    ) -> Iterator[TaskSummary]:
        """The tasks of the mesh that are in `state`, of a kind, on a node (id or name), at least `min_age_s` old."""
        return self._iterate(self.mesh.tasks(state=state, kind=kind, node=node, min_age_s=min_age_s))

    def warnings(self, kind: str, requires: dict[str, Any] | None = None) -> tuple[str, ...]:
        """Why no node that is in the mesh now can ever run such a task, a sentence each; empty when one can."""
        return self._call(self.mesh.warnings(kind, requires))

    def nodes(self) -> list[NodeRecord]:
        """The record of every node."""
        return self._call(self.mesh.nodes())

    # --- blobs --------------------------------------------------------------------------------------
    def put_blob(
        self,
        source: bytes | Path | Iterable[bytes],
        content_type: str = "application/octet-stream",
        keep: bool = False,
    ) -> BlobRef:
        """Upload bytes, a file or chunks; a payload names the blob as {"blob": reference.blob}."""
        content = source if isinstance(source, (bytes, Path)) else read_in_thread(source)
        return self._call(self.mesh.put_blob(content, content_type, keep))

    def open_blob(self, blob: str) -> tuple[BlobRef, Iterator[bytes]]:
        """The reference of a blob, and its content in chunks."""
        reference, chunks = self._call(self.mesh.open_blob(blob))
        return reference, self._iterate(chunks)

    def blob_part(self, blob: str, start: int, length: int) -> Iterator[bytes]:
        """`length` bytes of a blob, from byte `start` on, in chunks."""
        return self._iterate(self._call(self.mesh.blob_part(blob, start, length)))

    def delete_blob(self, blob: str) -> None:
        """Remove a blob now; refused while a task that has not ended names it."""
        self._call(self.mesh.delete_blob(blob))

    def get_blob(self, blob: str) -> bytes:
        """The content of a blob, all in memory."""
        return self._call(self.mesh.get_blob(blob))

    def save_blob(self, blob: str, target: Path) -> BlobRef:
        """Write a blob to the file `target`, chunk by chunk."""
        return self._call(self.mesh.save_blob(blob, target))

    # --- dead letters -------------------------------------------------------------------------------
    def dead_list(self, kind: str = "") -> list[DeadLetter]:
        """The dead letters (of one kind), oldest first."""
        return self._call(self.mesh.dead_list(kind))

    def dead_page(self, kind: str = "", limit: int = DEFAULT_LIMIT, after: str = "") -> DeadPage:
        """A part of the dead letters (of one kind), oldest first. `after`: the `next` of the page before."""
        return self._call(self.mesh.dead_page(kind, limit, after))

    def dead_show(self, task: str) -> DeadLetter:
        """The dead letter of a task."""
        return self._call(self.mesh.dead_show(task))

    def dead_replay(self, task: str) -> Accepted:
        """Submit the task of a dead letter again, under a new id; the letter is removed."""
        return self._call(self.mesh.dead_replay(task))
