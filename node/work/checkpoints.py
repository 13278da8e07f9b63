"""What this node's workers have got done, on its way into the mesh, and back when a task goes on here.

A worker hands over a file and works on; the newest one that waits is stored, while the run that made it still holds its
task by all this node knows (`mesh/tasks/checkpoints.py` has the bus refuse it otherwise). That a checkpoint can't be
kept never fails a task: it is logged, and the work can ask how many were.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesh.bus.errors import DamagedBlob
from mesh.errors import NotFound, QueztlError
from mesh.kinds.table import KINDS
from mesh.tasks import checkpoints
from mesh.tasks.checkpoints import Hold, Superseded
from node.executor.jobs import Job
from node.work.deliveries import Deliveries, Delivery

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)
FILE = "checkpoint"


def objection(size: int, limit: int, declared: bool, held: bool, trusted: bool, superseded: bool) -> str:
    """Why a checkpoint is not stored; "" when it is. Pure.

    `declared`: by its kind; `held`, `trusted`: of its delivery; `superseded`: whether the bus refused one before.
    """
    if not declared:
        return "its kind does not declare any"
    if superseded or not held:
        return "another run has the task now"
    if not trusted:
        return "this node was cut off or stood still, and another one may have the task"
    if size > limit:
        return f"{size >> 20} MB are more than checkpoint_max_bytes, {limit >> 20} MB"
    return ""


@dataclass(slots=True)
class _Keeping:
    """The checkpoints of one task."""

    hold: Hold
    waiting: tuple[Job, Path, str] | None = None
    working: asyncio.Task[None] | None = None
    superseded: bool = False


class Checkpoints:
    """Of one node. `report(job, kept)` is called for each checkpoint, once it is known whether the mesh has it."""

    def __init__(self, bus: Bus, node: str, deliveries: Deliveries) -> None:
        self._bus, self._node, self._deliveries = bus, node, deliveries
        self.report: Callable[[Job, bool], None] = lambda job, kept: None
        self._keepings: dict[str, _Keeping] = {}

    async def resume(self, delivery: Delivery, folder: Path) -> Path | None:
        """Take over a task that may have run before: its newest checkpoint as a file in `folder`, if there is one.

        Raises: BusUnavailable.
        """
        task = delivery.task.id
        await self.release(task)
        hold = await checkpoints.claim(self._bus, task, self._node)
        self._keepings[task] = _Keeping(hold)
        if not hold.blob:
            return None
        file = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        try:
            await self._bus.objects.fetch(hold.blob, file)
        except (NotFound, DamagedBlob) as error:
            log.warning("task %s starts over, its checkpoint can't be read: %s", task, error)
            file.unlink(missing_ok=True)
            return None
        return file

    def take(self, job: Job, file: Path, note: str) -> None:
        """A worker handed over a file, which is this object's from now on."""
        delivery: Any = job.token
        keeping = self._keepings.get(job.id)
        why = objection(
            file.stat().st_size if file.exists() else 0,
            self._bus.config.checkpoint_max_bytes,
            KINDS[job.kind].checkpoints,
            isinstance(delivery, Delivery) and self._deliveries.get(delivery.stream_seq) is delivery,
            isinstance(delivery, Delivery) and delivery.trusted,
            keeping is not None and keeping.superseded,
        )
        if why:
            log.warning("a checkpoint of task %s is not kept: %s", job.id, why)
            file.unlink(missing_ok=True)
            self.report(job, False)
            return
        if keeping is None:
            keeping = self._keepings[job.id] = _Keeping(checkpoints.new_hold(self._node))
        if keeping.waiting is not None:
            self._pass_over(keeping.waiting)
        keeping.waiting = job, file, note
        if keeping.working is None:
            keeping.working = asyncio.create_task(self._store(keeping), name=f"checkpoints of {job.id}")

    async def release(self, task: str) -> None:
        """This run of the task is over, the task is not: let what was handed over be stored."""
        keeping = self._keepings.get(task)
        if keeping is not None and keeping.working is not None:
            await asyncio.wait({keeping.working})
        self._keepings.pop(task, None)

    async def release_all(self) -> None:
        """This node leaves."""
        await asyncio.gather(*(self.release(task) for task in list(self._keepings)))

    def has(self, task: str) -> bool:
        """Whether there may be something to remove when that task ends."""
        return task in self._keepings

    async def remove(self, task: str) -> None:
        """The task has ended."""
        keeping = self._keepings.pop(task, None)
        if keeping is None:
            return
        if keeping.waiting is not None:
            self._pass_over(keeping.waiting)
            keeping.waiting = None
        if keeping.working is not None:
            # To its end: cut short, nobody would know which blobs are there.
            await asyncio.wait({keeping.working})
        if keeping.superseded:
            return  # the other run removes it, or the master does
        try:
            await checkpoints.remove(self._bus, task)
        except QueztlError as error:
            log.info("the checkpoint of %s is left to the master: %s", task, error)

    async def _store(self, keeping: _Keeping) -> None:
        try:
            while keeping.waiting is not None:
                job, file, note = keeping.waiting
                keeping.waiting, kept = None, False
                try:
                    keeping.hold = await checkpoints.store(self._bus, job.id, keeping.hold, file, note)
                    kept = True
                except Superseded as error:
                    keeping.superseded = True
                    log.info("%s", error)
                except (QueztlError, OSError) as error:
                    log.warning("a checkpoint of task %s could not be kept: %s", job.id, error)
                finally:
                    file.unlink(missing_ok=True)
                self.report(job, kept)
        finally:
            keeping.working = None
            if keeping.waiting is not None:
                self._pass_over(keeping.waiting)
                keeping.waiting = None

    def _pass_over(self, waiting: tuple[Job, Path, str]) -> None:
        """A newer one came before it was stored."""
        waiting[1].unlink(missing_ok=True)
