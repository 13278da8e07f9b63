"""What a task has got done, kept by the mesh while it runs, so that the death of its node costs seconds of it.

KV `checkpoints`: one record a task, which names the blob that holds its newest checkpoint and whoever may replace it.
The record's revision is the fence. A run that goes on from another one first *claims* the record: it writes itself
into it over exactly the revision it read. Whoever held it before still knows the older revision, and the bus refuses
his checkpoints from then on, however late they come. A checkpoint is named only when all of it is stored, and the one
before is removed after that: at any moment the record names a whole one, or none.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

from mesh import messages, subjects
from mesh.bus.errors import KeyExists, WrongSequence
from mesh.errors import BusUnavailable, QueztlError
from mesh.messages import Checkpoint
from mesh.tasks import records

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/x-queztl-checkpoint"
#: Tries to write a record that others write too.
_TRIES = 8


class Superseded(QueztlError):
    """Another run of the task has taken over, or it has ended: nothing of this one is kept any more."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The right of one run to write a task's record: its own name, and the revision it last saw. 0: no record yet."""

    holder: str
    revision: int = 0
    blob: str = ""
    """what the record names: the newest checkpoint"""


def new_hold(node: str) -> Hold:
    """For a run that begins afresh; a record is written with its first checkpoint only."""
    return Hold(f"{node}.{secrets.token_hex(6)}")


def standing(hold: Hold, found: Checkpoint | None, revision: int) -> Hold | None:
    """What `hold` is worth once its write was refused or not answered, and the record that is there was read.

    The same right at a newer revision, when the record is one's own (an answer was lost); None when it is another
    run's, or was removed because the task ended. Pure.
    """
    if found is None or found.holder != hold.holder or revision < hold.revision:
        return None
    return Hold(hold.holder, revision, found.blob)


def ended(named: Collection[str], ends: Mapping[str, object]) -> list[str]:
    """Which of the tasks with a record need it no more. Pure."""
    return [task for task in named if task in ends]


async def claim(bus: Bus, task: str, node: str) -> Hold:
    """Take over a task that may have run before; `blob` of the result is its newest checkpoint, if there is one.

    Raises: BusUnavailable.
    """
    bucket, mine = bus.kv(subjects.KV_CHECKPOINTS), new_hold(node)
    for _ in range(_TRIES):
        entry = await bucket.get(task)
        before = messages.decode_checkpoint(entry.value) if entry is not None else Checkpoint(holder="")
        record = messages.encode(Checkpoint(mine.holder, before.blob, before.size, before.note, time()))
        try:
            if entry is None:
                revision = await bucket.create(task, record)
            else:
                revision = await bucket.update(task, record, entry.revision)
        except (WrongSequence, KeyExists):
            continue  # whoever held it stored one more, or its answer was lost: read again
        return Hold(mine.holder, revision, before.blob)
    raise BusUnavailable(f"the checkpoint of {task} changes faster than it can be taken over; try again shortly")


async def store(bus: Bus, task: str, hold: Hold, file: Path, note: str) -> Hold:
    """Keep `file` as the newest checkpoint, then drop the one before; the right for the next one.

    Raises: Superseded; StorageFull; BusUnavailable. Whatever is raised, the checkpoint before still stands.
    """
    reference = await bus.objects.put(file, CONTENT_TYPE)
    record = Checkpoint(hold.holder, reference.blob, reference.size, note, time())
    try:
        after = await _write(bus, task, hold, record)
    except Superseded:
        await bus.objects.delete(reference.blob)
        raise
    # Not removed when it is unknown which of the two the record names: what it does not name goes with its lifetime.
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
        except (WrongSequence, KeyExists, BusUnavailable) as refused:
            entry = await bucket.get(task)
            found = messages.decode_checkpoint(entry.value) if entry is not None else None
            again = standing(hold, found, entry.revision if entry is not None else 0)
            if again is None and isinstance(refused, BusUnavailable) and entry is None and not hold.revision:
                continue  # the first one never arrived
            if again is None:
                raise Superseded(f"{task} has ended, or another run of it has taken over its checkpoints") from None
            if again.blob == record.blob:
                return again  # it was written, only the answer was lost
            hold = again
    raise BusUnavailable(f"the checkpoint of {task} could not be named; try again shortly")


async def remove(bus: Bus, task: str) -> bool:
    """A task has ended: its checkpoint is nobody's any more; False when it had none. Raises: BusUnavailable."""
    bucket = bus.kv(subjects.KV_CHECKPOINTS)
    entry = await bucket.get(task)
    if entry is None:
        return False
    await bucket.delete(task)
    blob = messages.decode_checkpoint(entry.value).blob
    if blob:
        await bus.objects.delete(blob)
    return True


async def sweep(bus: Bus) -> int:
    """Remove the checkpoints of tasks that have ended, whoever ended them; returns how many. Raises: BusUnavailable."""
    named = await bus.kv(subjects.KV_CHECKPOINTS).keys()
    gone = ended(named, await records.read_ends(bus, named)) if named else []
    for task in gone:
        await remove(bus, task)
    return len(gone)
