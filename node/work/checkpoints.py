"""Stores the checkpoints of this node's tasks in the mesh, and fetches them when a task resumes here.

A worker hands over a file and works on. The node stores the newest one while it still holds the task, as far as it
knows; otherwise the bus refuses it (`mesh/tasks/checkpoints.py`). A checkpoint that can't be stored never fails a task:
it is logged, and the workload can read how many were stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.bus.client import Bus
from mesh.bus.errors import DamagedBlob
from mesh.errors import NotFound, QueztlError
from mesh.kinds.table import KINDS
from mesh.tasks import checkpoints
from mesh.tasks.checkpoints import Hold, Superseded
from node.executor.jobs import Job
from node.work.deliveries import Deliveries, Delivery

log = logging.getLogger(__name__)
FILE = "checkpoint"


def refusal(size: int, limit: int, declared: bool, held: bool, trusted: bool, superseded: bool) -> str:
    """Why a checkpoint is not stored; "" when it is. Sizes in bytes. Pure.

    `declared`: whether its kind has checkpoints; `held`, `trusted`: of its delivery; `superseded`: whether the bus has
    refused a checkpoint of this run.
    """
    if not declared:
        return "its kind has no checkpoints"
    if superseded or not held:
        return "another run has the task now"
    if not trusted:
        return "this node was disconnected or stood still, so another node may run the task"
    if size > limit:
        return f"its {size >> 20} MB exceed checkpoint_max_bytes, {limit >> 20} MB"
    return ""


@dataclass(slots=True)
class _TaskCheckpoints:
    """The checkpoints of one task."""

    hold: Hold
    waiting: tuple[Job, Path, str] | None = None
    """The newest one that is not stored yet: job, file, note."""
    storing: asyncio.Task[None] | None = None
    superseded: bool = False


class Checkpoints:
    """The checkpoints of one node's tasks."""

    def __init__(self, bus: Bus, node: str, deliveries: Deliveries) -> None:
        self._bus, self._node, self._deliveries = bus, node, deliveries
        self.report: Callable[[Job, bool], None] = lambda job, stored: None
        """Called for each checkpoint when it is known whether the mesh has stored it."""
        self._of_task: dict[str, _TaskCheckpoints] = {}

    async def resume(self, delivery: Delivery, folder: Path) -> Path | None:
        """Take over a task that may have run before. Its newest checkpoint as a file in `folder`; None: it has none.

        Raises: BusUnavailable.
        """
        task = delivery.task.id
        await self.release(task)
        hold = await checkpoints.claim(self._bus, task, self._node)
        self._of_task[task] = _TaskCheckpoints(hold)
        if not hold.blob:
            return None
        file = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        try:
            await self._bus.objects.fetch(hold.blob, file)
        except (NotFound, DamagedBlob) as error:
            log.warning("could not read the checkpoint of task %s, which starts over: %s", task, error)
            file.unlink(missing_ok=True)
            return None
        return file

    def take(self, job: Job, file: Path, note: str) -> None:
        """A worker hands over a checkpoint file, which belongs to this object from now on."""
        delivery: Any = job.token
        stored = self._of_task.get(job.id)
        reason = refusal(
            file.stat().st_size if file.exists() else 0,
            self._bus.config.checkpoint_max_bytes,
            KINDS[job.kind].checkpoints,
            isinstance(delivery, Delivery) and self._deliveries.get(delivery.stream_seq) is delivery,
            isinstance(delivery, Delivery) and delivery.trusted,
            stored is not None and stored.superseded,
        )
        if reason:
            log.warning("not storing a checkpoint of task %s: %s", job.id, reason)
            file.unlink(missing_ok=True)
            self.report(job, False)
            return
        if stored is None:
            stored = self._of_task[job.id] = _TaskCheckpoints(checkpoints.new_hold(self._node))
        if stored.waiting is not None:
            self._discard(stored.waiting)
        stored.waiting = job, file, note
        if stored.storing is None:
            stored.storing = asyncio.create_task(self._store(stored), name=f"store checkpoints of {job.id}")

    async def release(self, task: str) -> None:
        """This run of the task has ended, but not the task: finish storing its checkpoints, and forget it."""
        stored = self._of_task.get(task)
        if stored is not None and stored.storing is not None:
            await asyncio.wait({stored.storing})
        self._of_task.pop(task, None)

    async def release_all(self) -> None:
        """Release every task, when this node leaves."""
        await asyncio.gather(*(self.release(task) for task in list(self._of_task)))

    def has(self, task: str) -> bool:
        """Whether the task may have a checkpoint that must be removed when it ends."""
        return task in self._of_task

    async def remove(self, task: str) -> None:
        """Remove the checkpoint of a task that has ended."""
        stored = self._of_task.pop(task, None)
        if stored is None:
            return
        if stored.waiting is not None:
            self._discard(stored.waiting)
            stored.waiting = None
        if stored.storing is not None:
            # Not cancelled: that could leave a blob that no record names.
            await asyncio.wait({stored.storing})
        if stored.superseded:
            return  # the other run, or the leader, removes it
        try:
            await checkpoints.remove(self._bus, task)
        except QueztlError as error:
            log.info("could not remove the checkpoint of %s; the leader removes it: %s", task, error)

    async def _store(self, stored: _TaskCheckpoints) -> None:
        try:
            while stored.waiting is not None:
                job, file, note = stored.waiting
                stored.waiting, succeeded = None, False
                try:
                    stored.hold = await checkpoints.store(self._bus, job.id, stored.hold, file, note)
                    succeeded = True
                except Superseded as error:
                    stored.superseded = True
                    log.info("%s", error)
                except (QueztlError, OSError) as error:
                    log.warning("could not store a checkpoint of task %s: %s", job.id, error)
                finally:
                    file.unlink(missing_ok=True)
                self.report(job, succeeded)
        finally:
            stored.storing = None
            if stored.waiting is not None:
                self._discard(stored.waiting)
                stored.waiting = None

    def _discard(self, waiting: tuple[Job, Path, str]) -> None:
        """A newer checkpoint came before this one was stored."""
        waiting[1].unlink(missing_ok=True)
