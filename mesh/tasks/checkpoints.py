"""Checkpoints of running tasks, so that a dead node costs seconds of work and not the whole run.

KV `checkpoints` has one record per task: the blob with its newest checkpoint, and the run that may replace it. The
revision of the record is the fence. A run that continues from another one first *claims* the record: it writes its own
name over exactly the revision that it read. The earlier run knows only the older revision, so the bus refuses its
checkpoints from then on, however late they arrive. A checkpoint is recorded only after all of it is stored, and the
previous one is deleted only after that: at any moment the record names a complete checkpoint, or none.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from mesh import decoding, messages, subjects
from mesh.bus.errors import WrongSequence
from mesh.decoding import readable
from mesh.errors import BusUnavailable, QueztlError
from mesh.messages import Checkpoint
from mesh.tasks import records

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/x-queztl-checkpoint"
#: Attempts to write a record that other runs write too.
_TRIES = 8


class Superseded(QueztlError):
    """The task has ended, or another run has taken over; checkpoints of this run are refused."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The right of one run to write the record of a task: its own name and the revision it last saw (0: no record)."""

    holder: str
    revision: int = 0
    blob: str = ""
    """The newest checkpoint, as named by the record; "" when there is none."""


def new_hold(node: str) -> Hold:
    """A hold for a run that starts from the beginning; its record is written with the first checkpoint."""
    return Hold(f"{node}.{secrets.token_hex(6)}")


def renewed(hold: Hold, found: Checkpoint | None, revision: int) -> Hold | None:
    """The hold after a write was refused or not answered, given the record `found` at `revision`. Pure.

    The same hold at the newer revision, when the record still belongs to this run (an answer was lost); None when it
    belongs to another run, or was deleted because the task ended.
    """
    if found is None or found.holder != hold.holder or revision < hold.revision:
        return None
    return Hold(hold.holder, revision, found.blob)


def ended(tasks: Collection[str], ends: Mapping[str, object]) -> list[str]:
    """Those of `tasks`, which all have a record, that have an end. Pure."""
    return [task for task in tasks if task in ends]


async def claim(bus: Bus, task: str, node: str) -> Hold:
    """Claim the record of a task that may have run before. `blob` of the result is its newest checkpoint, if any.

    Raises: BusUnavailable.
    """
    bucket, own = bus.kv(subjects.KV_CHECKPOINTS), new_hold(node)
    for _ in range(_TRIES):
        entry = await bucket.get(task)
        before = readable(decoding.checkpoint, entry) or Checkpoint(holder="")
        record = messages.encode(Checkpoint(own.holder, before.blob, before.size, before.note, time()))
        try:
            if entry is None:
                revision = await bucket.create(task, record)
            else:
                revision = await bucket.update(task, record, entry.revision)
        except WrongSequence:
            continue  # the earlier run stored one more checkpoint, or an answer was lost: read again
        return Hold(own.holder, revision, before.blob)
    raise BusUnavailable(f"the checkpoint of {task} changes too fast to be claimed; try again shortly")


async def store(bus: Bus, task: str, hold: Hold, file: Path, note: str) -> Hold:
    """Store `file` as the newest checkpoint, delete the previous one, and return the hold for the next one.

    Raises: Superseded; StorageFull; BusUnavailable. The previous checkpoint stays valid whatever is raised.
    """
    reference = await bus.objects.put(file, CONTENT_TYPE)
    record = Checkpoint(hold.holder, reference.blob, reference.size, note, time())
    try:
        after = await _write(bus, task, hold, record)
    except Superseded:
        await bus.objects.delete(reference.blob)
        raise
    # On other errors it is unknown which of the two the record names: both stay, and the unnamed one expires.
    if hold.blob:
        await bus.objects.delete(hold.blob)
    return after


async def _write(bus: Bus, task: str, hold: Hold, record: Checkpoint) -> Hold:
    bucket, data = bus.kv(subjects.KV_CHECKPOINTS), messages.encode(record)
    for _ in range(_TRIES):
        try:
            if hold.revision:
                revision = await bucket.update(task, data, hold.revision)
            else:
                revision = await bucket.create(task, data)
            return Hold(hold.holder, revision, record.blob)
        except (WrongSequence, BusUnavailable) as refused:
            entry = await bucket.get(task)
            found = readable(decoding.checkpoint, entry)
            again = renewed(hold, found, entry.revision if entry is not None else 0)
            if again is None and isinstance(refused, BusUnavailable) and entry is None and not hold.revision:
                continue  # the first write never arrived
            if again is None:
                raise Superseded(f"{task} has ended, or another run of it has taken over its checkpoints") from None
            if again.blob == record.blob:
                return again  # it was written; only the answer was lost
            hold = again
    raise BusUnavailable(f"the checkpoint of {task} could not be recorded; try again shortly")


async def remove(bus: Bus, task: str) -> bool:
    """Delete the record and checkpoint of a task that has ended; False when it had none. Raises: BusUnavailable."""
    bucket = bus.kv(subjects.KV_CHECKPOINTS)
    entry = await bucket.get(task)
    if entry is None:
        return False
    await bucket.delete(task)
    record = readable(decoding.checkpoint, entry)
    if record is not None and record.blob:
        await bus.objects.delete(record.blob)
    return True


async def sweep(bus: Bus) -> int:
    """Delete the checkpoints of all tasks that have ended; returns how many. Raises: BusUnavailable."""
    tasks = [key for key in await bus.kv(subjects.KV_CHECKPOINTS).keys() if subjects.is_task_id(key)]
    unused = ended(tasks, await records.read_ends(bus, tasks)) if tasks else []
    for task in unused:
        await remove(bus, task)
    return len(unused)
