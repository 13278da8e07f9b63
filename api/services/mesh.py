"""What the bridge asks of the mesh: tasks, blobs and dead letters. Every method may raise BusUnavailable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from mesh.messages import BlobRef, DeadLetter, TaskEnd
from mesh.views import Accepted, DeadPage, TaskFilter, TaskPage, TaskView


class MeshServices(Protocol):
    """Tasks, blobs and dead letters: the part of `mesh.client.Mesh` that the bridge calls.

    Task ids that reach it have the form of a task id (see api.http.ids).
    """

    async def status(self, task: str, /) -> TaskView:
        """A task's view; a bare number is the sequence of an ingress message. Raises: NotFound."""

    async def end(self, task: str, /) -> TaskEnd | None:
        """A task's result record; None while it has not ended, or when there is no such task."""

    async def wait(self, task: str, wait_s: float, /) -> TaskEnd:
        """A task's result record as soon as it exists. Raises: WaitTimeout after `wait_s` seconds."""

    async def cancel(self, task: str, /) -> TaskView:
        """Cancel a task; one that has ended stays as it is. Raises: NotFound."""

    def watch(self, task: str, /) -> AsyncIterator[TaskView]:
        """The task's view now and after each change, until it has ended. Raises: NotFound (on the first step)."""

    async def put_blob(self, source: AsyncIterator[bytes], content_type: str, keep: bool, /) -> BlobRef:
        """Store a stream of bytes; a failed upload leaves nothing. Raises: StorageFull."""

    async def open_blob(self, blob: str, /) -> tuple[BlobRef, AsyncIterator[bytes]]:
        """A blob's reference and its bytes. Raises: NotFound."""

    async def blob_part(self, blob: str, start: int, length: int, /) -> AsyncIterator[bytes]:
        """`length` bytes of a blob, from byte `start` on. Raises: NotFound."""

    async def delete_blob(self, blob: str, /) -> None:
        """Remove a blob. Raises: NotFound; Conflict while a task needs it."""

    async def task_page(self, filters: TaskFilter, limit: int, after: str, /) -> TaskPage:
        """A part of the list of tasks, from the cursor `after` on ("": from the start). Raises: BadInput."""

    async def dead_page(self, kind: str, limit: int, after: str, /) -> DeadPage:
        """A part of the dead letters, of one kind or of all, oldest first. Raises: BadInput."""

    async def dead_show(self, task: str, /) -> DeadLetter:
        """The dead letter of a task. Raises: NotFound."""

    async def dead_replay(self, task: str, /) -> Accepted:
        """Submit a dead task again as a new task. Raises: NotFound, and what `Services.accept` raises."""
