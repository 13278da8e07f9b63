"""What a client reads from the mesh, and stores in it, beside tasks: lists of tasks, nodes, blobs, dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from mesh import decoding, subjects
from mesh.client_connection import ClientConnection
from mesh.decoding import readable_of
from mesh.messages import BlobRef, DeadLetter, NodeRecord
from mesh.scheduling import placement
from mesh.tasks import blob_refs, dead_letters, listing
from mesh.tasks import status as task_status
from mesh.views import Accepted, DeadPage, TaskFilter, TaskPage, TaskSummary


class ClientStores(ClientConnection):
    """The part of `mesh.client.Mesh` that submits nothing."""

    # --- lists --------------------------------------------------------------------------------------
    async def task_page(self, filters: TaskFilter, limit: int = listing.DEFAULT_LIMIT, after: str = "") -> TaskPage:
        """A part of the list of tasks: first those that wait or run, then those that ended, each the oldest first.

        `after`: the `next` of the page before. A page costs the same however many tasks there are, and may be empty
        although there are more (see `mesh.tasks.listing`). Raises: BadInput with every fault; BusUnavailable.
        """
        members = self._members() if self._members else await task_status.recorded_members(self.bus)
        named = {member.record.id for member in members if member.record.name == filters.node}
        nodes = {filters.node, *named} if filters.node else set[str]()
        return await listing.page(self.bus, filters, nodes, limit, after, members)

    async def tasks(
        self, *, state: str = "", kind: str = "", node: str = "", min_age_s: float = 0.0
    ) -> AsyncIterator[TaskSummary]:
        """The tasks of the mesh that are in `state`, of a kind, on a node (id or name), at least `min_age_s` old.

        Read page by page, see `task_page`. Raises: BadInput with every fault; BusUnavailable.
        """
        filters, after = TaskFilter(state, kind.lower(), node, min_age_s), ""
        while True:
            page = await self.task_page(filters, listing.MAX_LIMIT, after)
            for task in page.tasks:
                yield task
            if not page.next:
                return
            after = page.next

    async def warnings(self, kind: str, requires: dict[str, Any] | None = None) -> tuple[str, ...]:
        """Why no node that is in the mesh now can ever run such a task, a sentence each; empty when one can.

        Raises: BusUnavailable.
        """
        members = self._members() if self._members else await task_status.recorded_members(self.bus)
        return placement.warnings(requires or {}, kind.lower(), members)

    async def nodes(self) -> list[NodeRecord]:
        """The record of every node. Raises: BusUnavailable."""
        return readable_of(decoding.node, await self.bus.kv(subjects.KV_NODES).entries())

    # --- blobs --------------------------------------------------------------------------------------
    async def put_blob(
        self,
        source: bytes | Path | AsyncIterator[bytes],
        content_type: str = "application/octet-stream",
        keep: bool = False,
    ) -> BlobRef:
        """Upload bytes, a file or chunks; a payload names the blob as {"blob": reference.blob}.

        `keep`: until it is deleted; otherwise it goes when no task names it any more, or after a day.
        Raises: StorageFull, BusUnavailable, OSError.
        """
        self.submitter.check_store()
        return await self.bus.objects.put(source, content_type, keep)

    async def open_blob(self, blob: str) -> tuple[BlobRef, AsyncIterator[bytes]]:
        """The reference of a blob, and its content in chunks. Raises: NotFound, BusUnavailable."""
        return await self.bus.objects.look(blob)

    async def blob_part(self, blob: str, start: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes of a blob, from byte `start` on, in chunks. Raises: NotFound, BusUnavailable."""
        return await self.bus.objects.part(blob, start, length)

    async def delete_blob(self, blob: str) -> None:
        """Remove a blob now. Raises: NotFound; Conflict while a task that has not ended names it; BusUnavailable."""
        await self.bus.objects.info(blob)
        await blob_refs.delete_unused(self.bus, blob)

    async def get_blob(self, blob: str) -> bytes:
        """The content of a blob, all in memory. Raises: NotFound, BusUnavailable."""
        _, chunks = await self.open_blob(blob)
        return b"".join([chunk async for chunk in chunks])

    async def save_blob(self, blob: str, target: Path) -> BlobRef:
        """Write a blob to the file `target`, chunk by chunk. Raises: NotFound, BusUnavailable, OSError."""
        return await self.bus.objects.fetch(blob, target)

    # --- dead letters -------------------------------------------------------------------------------
    async def dead_list(self, kind: str = "") -> list[DeadLetter]:
        """The dead letters (of one kind), oldest first. Raises: BadInput for what can be no kind; BusUnavailable."""
        return await dead_letters.list_all(self.bus, kind)

    async def dead_page(self, kind: str = "", limit: int = dead_letters.DEFAULT_LIMIT, after: str = "") -> DeadPage:
        """A part of the dead letters (of one kind), oldest first. `after`: the `next` of the page before.

        Raises: BadInput with every fault; BusUnavailable.
        """
        return await dead_letters.page(self.bus, kind, limit, after)

    async def dead_show(self, task: str) -> DeadLetter:
        """The dead letter of a task. Raises: NotFound, BusUnavailable."""
        return await dead_letters.show(self.bus, task)

    async def dead_replay(self, task: str) -> Accepted:
        """Submit the task of a dead letter again under a new id; the letter goes. Raises: NotFound; as `accept`."""
        return await dead_letters.replay(self.bus, self.submitter, task)
