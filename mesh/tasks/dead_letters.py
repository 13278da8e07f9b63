"""Dead letters: tasks that used up their attempts or are poison, kept for reading and replay."""

from __future__ import annotations

import logging
import re
from time import time
from typing import TYPE_CHECKING

import msgspec

from mesh import decoding, subjects
from mesh.bus.pages import read_page
from mesh.bus.replies import StoredMessage
from mesh.decoding import Unreadable
from mesh.errors import BadInput, Fault, NotFound, bad_input
from mesh.messages import DeadLetter, Task, TaskEnd, TaskError, encode
from mesh.tasks import records
from mesh.tasks.validation import Prepared
from mesh.views import Accepted, DeadPage

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.tasks.submitter import Submitter


log = logging.getLogger(__name__)

#: At most this much of an unreadable message is kept, bytes: the dead letter must fit into one message.
KEPT_BYTES = 512 * 1024
DEFAULT_LIMIT, MAX_LIMIT = 100, 500
#: A page ends once it holds this many bytes of letters.
_PAGE_BYTES = 4 << 20
_CURSOR = re.compile(r"[0-9]{1,19}", re.ASCII)


async def bury(bus: Bus, task: Task, end: TaskEnd) -> None:
    """Store the dead letter of a task. Idempotent. Raises: BusUnavailable, StorageFull."""
    letter = DeadLetter(task=task, end=end, died_at=time())
    await bus.store(subjects.dead(task.kind, task.id), encode(letter), msg_id=f"dead-{task.id}")


async def bury_unreadable(bus: Bus, node: str, subject: str, sequence: int, data: bytes, reason: str) -> None:
    """End a message of WORK or LATER that can't be a task: a dead letter with its bytes, and the end of its task.

    Its id and kind are those of its subject; where the subject has none, the id is `unreadable-<sequence>`. Repeating
    it changes nothing. `node`: who found it. Raises: BusUnavailable, StorageFull.
    """
    task = _named_by(subject, sequence)
    log.warning("the message %d on %s %s; it is kept as the dead letter %s", sequence, subject, reason, task.id)
    error = TaskError("unreadable", f"the message {reason}")
    end = TaskEnd(id=task.id, kind=task.kind, state="failed", node=node, ended_at=time(), error=error)
    letter = DeadLetter(task=task, end=end, died_at=time(), raw=data[:KEPT_BYTES])
    await bus.store(subjects.dead(task.kind, task.id), encode(letter), msg_id=f"dead-{task.id}")
    await records.write_end(bus, end)


def _named_by(subject: str, sequence: int) -> Task:
    """A task with the id and the kind that the subject of an unreadable message names. Pure."""
    parts = subject.split(".")
    kind = parts[1] if parts[0] == "work" and subjects.is_token(parts[1]) else "unreadable"
    task = parts[-1] if subjects.is_task_id(parts[-1]) else subjects.task_id("unreadable", sequence)
    return Task(id=task, kind=kind)


async def page(bus: Bus, kind: str, limit: int, after: str) -> DeadPage:
    """The next dead letters (of one kind), oldest first. `after`: "" or the `next` of an earlier page.

    Any copy of the stream answers, and one that lags may miss the newest letters.
    Raises: BadInput with every fault; BusUnavailable.
    """
    kind = kind.lower()
    faults: list[Fault] = []
    if kind and not subjects.is_token(kind):
        faults.append(Fault("kind", "must be letters, digits, '_' or '-'"))
    if not 1 <= limit <= MAX_LIMIT:
        faults.append(Fault("limit", f"must be a whole number from 1 to {MAX_LIMIT}"))
    if after and not _CURSOR.fullmatch(after):
        faults.append(Fault("after", "must be the `next` of an earlier page"))
    if faults:
        raise bad_input("The query is not valid", faults)
    start = int(after or 0)
    messages, more = await read_page(bus, subjects.DEAD, subjects.any_dead(kind), start, limit, _PAGE_BYTES)
    letters = (_letter(message) for message in messages)
    return DeadPage(tuple(letter for letter in letters if letter), str(messages[-1].sequence) if more else "")


async def list_all(bus: Bus, kind: str = "") -> list[DeadLetter]:
    """All dead letters (of one kind), oldest first. Raises: BadInput for what can be no kind; BusUnavailable."""
    part = await page(bus, kind, MAX_LIMIT, "")
    found = list(part.letters)
    while part.next:
        part = await page(bus, kind, MAX_LIMIT, part.next)
        found += part.letters
    return sorted(found, key=lambda letter: letter.died_at)


def _letter(stored: StoredMessage) -> DeadLetter | None:
    letter = decoding.dead_letter(stored.data) if stored.data else None
    if isinstance(letter, Unreadable):
        log.debug("the dead letter at %s can't be read and is ignored: it %s", stored.subject, letter.reason)
        return None
    return letter


async def show(bus: Bus, task: str) -> DeadLetter:
    """The dead letter of a task. Raises: NotFound, BusUnavailable."""
    stored = await bus.read_last(subjects.DEAD, subjects.any_dead_of(task)) if subjects.is_token(task) else None
    letter = _letter(stored) if stored is not None else None
    if letter is None:
        raise NotFound(f"there is no dead letter {task}; `queztl dead list` shows all dead letters")
    return letter


async def replay(bus: Bus, submitter: Submitter, task: str) -> Accepted:
    """Submit the task of a dead letter again under a new id, then delete the letter.

    Raises: NotFound; BadInput when its message can't be read; as `publish`.
    """
    letter = await show(bus, task)
    if letter.raw:
        raise BadInput(f"the message of the dead letter {task} can't be read as a task, so it can't be submitted again")
    fresh = msgspec.structs.replace(letter.task, id=submitter.next_id(), submitted_at=time(), expires_s=0.0)
    lane = (fresh.kind, fresh.pool, fresh.urgency)
    await submitter.publish(Prepared(fresh, lane, 0.0))
    await bus.purge(subjects.DEAD, subjects.dead(letter.task.kind, task))
    return Accepted(fresh.id, fresh.kind)
