"""Dead letters: tasks that used up their attempts or are poison, kept for reading and replay."""

from __future__ import annotations

import asyncio
from time import time
from typing import TYPE_CHECKING

import msgspec

from mesh import subjects
from mesh.errors import BadInput, Fault, NotFound
from mesh.messages import DeadLetter, Task, TaskEnd, decode_dead, encode
from mesh.tasks.validation import Prepared
from mesh.views import Accepted

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.tasks.submitter import Submitter


async def bury(bus: Bus, task: Task, end: TaskEnd) -> None:
    """Store the dead letter of a task. Idempotent. Raises: BusUnavailable, StorageFull."""
    letter = DeadLetter(task=task, end=end, died_at=time())
    await bus.store(subjects.dead(task.kind, task.id), encode(letter), msg_id=f"dead-{task.id}")


async def list_all(bus: Bus, kind: str = "") -> list[DeadLetter]:
    """All dead letters (of one kind), oldest first. Raises: BadInput for what can be no kind; BusUnavailable."""
    kind = kind.lower()
    if kind and not subjects.is_token(kind):
        raise BadInput("that can't be a kind", (Fault("kind", "must be letters, digits, '_' or '-'"),))
    pattern = subjects.dead(kind or "*", "*")
    names = (await bus.stream_info(subjects.DEAD, pattern)).subjects
    letters = await asyncio.gather(*(_read(bus, name) for name in names))
    return sorted((letter for letter in letters if letter), key=lambda letter: letter.died_at)


async def _read(bus: Bus, subject: str) -> DeadLetter | None:
    stored = await bus.read_last(subjects.DEAD, subject)
    return decode_dead(stored.data) if stored is not None else None


async def show(bus: Bus, task: str) -> DeadLetter:
    """The dead letter of a task. Raises: NotFound, BusUnavailable."""
    letter = await _read(bus, subjects.dead("*", task)) if subjects.is_token(task) else None
    if letter is None:
        raise NotFound(f"there is no dead letter {task}; `queztl dead list` shows all dead letters")
    return letter


async def replay(bus: Bus, submitter: Submitter, task: str) -> Accepted:
    """Submit the task of a dead letter again under a new id, then delete the letter. Raises: NotFound; as `publish`."""
    letter = await show(bus, task)
    fresh = msgspec.structs.replace(letter.task, id=submitter.next_id(), submitted_at=time(), expires_at=0.0)
    lane = (fresh.kind, fresh.pool, fresh.urgency)
    await submitter.publish(Prepared(fresh, lane, 0.0))
    await bus.purge(subjects.DEAD, subjects.dead(letter.task.kind, task))
    return Accepted(fresh.id, fresh.kind)
