"""Dead letters: tasks that used up their attempts or are poison, kept to be read and replayed."""

from __future__ import annotations

import asyncio
import base64
from time import time
from typing import TYPE_CHECKING

import msgspec

from mesh import subjects
from mesh.bus.errors import MESSAGE_NOT_FOUND, ApiError
from mesh.errors import BadInput, Fault, NotFound
from mesh.messages import DeadLetter, Task, TaskEnd, decode_dead, encode
from mesh.tasks.validation import Prepared
from mesh.views import Accepted

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.tasks.submitter import Submitter


async def bury(bus: Bus, task: Task, end: TaskEnd) -> None:
    """Keep a task that died; writing it twice changes nothing."""
    letter = DeadLetter(task=task, end=end, died_at=time())
    await bus.store(subjects.dead(task.kind, task.id), encode(letter), msg_id=f"dead-{task.id}")


async def list_all(bus: Bus, kind: str = "") -> list[DeadLetter]:
    """Every dead letter (of one kind), oldest first. Raises: BadInput for what can be no kind."""
    kind = kind.lower()
    if kind and not subjects.is_token(kind):
        raise BadInput("that is no kind of work", (Fault("kind", "must be letters, digits, '_' or '-'"),))
    pattern = subjects.dead(kind or "*", "*")
    answer = await bus.api(f"STREAM.INFO.{subjects.DEAD}", {"subjects_filter": pattern})
    names = list((answer.get("state") or {}).get("subjects") or {})
    letters = await asyncio.gather(*(_read(bus, name) for name in names))
    return sorted((letter for letter in letters if letter), key=lambda letter: letter.died_at)


async def _read(bus: Bus, subject: str) -> DeadLetter | None:
    try:
        answer = await bus.api(f"STREAM.MSG.GET.{subjects.DEAD}", {"last_by_subj": subject})
    except ApiError as error:
        if error.error_code == MESSAGE_NOT_FOUND:
            return None
        raise
    return decode_dead(base64.b64decode(answer["message"]["data"]))


async def show(bus: Bus, task: str) -> DeadLetter:
    """The dead letter of one task. Raises: NotFound."""
    letter = await _read(bus, subjects.dead("*", task)) if subjects.is_token(task) else None
    if letter is None:
        raise NotFound(f"there is no dead letter {task}; `queztl dead list` shows those there are")
    return letter


async def replay(bus: Bus, submitter: Submitter, task: str) -> Accepted:
    """Submit a dead letter's task again under a new id, then remove the letter. Raises: NotFound."""
    letter = await show(bus, task)
    fresh = msgspec.structs.replace(letter.task, id=submitter.next_id(), submitted_at=time(), expires_at=0.0)
    lane = (fresh.kind, fresh.pool, fresh.urgency)
    await submitter.publish(Prepared(fresh, lane, 0.0))
    await bus.api(f"STREAM.PURGE.{subjects.DEAD}", {"filter": subjects.dead(letter.task.kind, task)})
    return Accepted(fresh.id, fresh.kind)
