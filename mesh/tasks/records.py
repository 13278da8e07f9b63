"""The records of tasks on the bus: reading them, and writing the final state.

The state of a task is given by the first of these that exists: its `.end` record, its `.state` record, its message in a
lane, its schedule.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mesh import decoding, subjects
from mesh.bus import reserved
from mesh.bus.errors import WrongSequence
from mesh.bus.pages import read_last_of
from mesh.config import MeshConfig
from mesh.decoding import Unreadable
from mesh.errors import BusUnavailable
from mesh.messages import (
    Task,
    TaskEnd,
    TaskError,
    TaskState,
    encode,
)

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)

#: Smaller end records have a shorter lifetime, because there are many of them, bytes.
SMALL_BYTES = 1024
#: End records read with one request.
_BATCH = 256


def end_ttl_s(size: int, config: MeshConfig) -> int:
    """Lifetime of an `.end` record of `size` bytes, seconds."""
    return config.small_result_ttl_s if size < SMALL_BYTES else config.result_ttl_s


def end_headers(size: int, config: MeshConfig) -> dict[str, str]:
    """Headers of an `.end` record: it is written once, and expires."""
    return reserved.ONLY_FIRST | reserved.lifetime(end_ttl_s(size, config))


async def read_last(bus: Bus, stream: str, subject: str) -> bytes | None:
    """The last message of a stream on a subject; None when there is none, or only a marker of deletion or expiry.

    Raises: BusUnavailable, ApiError.
    """
    stored = await bus.read_last(stream, subject)
    return stored.data or None if stored is not None else None


async def read_end(bus: Bus, task: str) -> TaskEnd | None:
    """The `.end` record of a task; None while it has not ended. Raises: BusUnavailable."""
    data = await read_last(bus, subjects.TASKS, subjects.end(task))
    return end_of(task, data) if data else None


def end_of(task: str, data: bytes) -> TaskEnd:
    """The final record that is stored for `task`. One that can't be read stands like any other: the task has failed."""
    end = decoding.end_of(task, data)
    if not isinstance(end, Unreadable):
        return end
    error = TaskError("unreadable", f"the final record of this task {end.reason}")
    return TaskEnd(id=task, kind="", state="failed", error=error)


async def read_state(bus: Bus, task: str) -> TaskState | None:
    """The `.state` record of a task; None when it has none (it waits, or has run for less than 100 ms)."""
    data = await read_last(bus, subjects.TASKS, subjects.state(task))
    state = decoding.state(data) if data else None
    if isinstance(state, Unreadable) or (state is not None and state.id != task):
        log.debug("the state record of %s can't be read and is ignored", task)
        return None
    return state


async def read_waiting(bus: Bus, task: str) -> Task | None:
    """The task as stored in a lane (waiting, or delivered and not acknowledged); None when it is in none."""
    return _waiting(task, await read_last(bus, subjects.WORK, subjects.any_lane_of(task)))


async def read_delayed(bus: Bus, task: str) -> Task | None:
    """The delayed task, scheduled or due; None when it is not delayed."""
    return _waiting(task, await read_last(bus, subjects.LATER, subjects.any_later_of(task)))


def _waiting(task: str, data: bytes | None) -> Task | None:
    found = decoding.task(data) if data else None
    if isinstance(found, Unreadable) or (found is not None and found.id != task):
        return None  # the node that takes the message makes it a dead letter
    return found


async def read_ends(bus: Bus, tasks: Iterable[str]) -> dict[str, TaskEnd]:
    """The `.end` records of many tasks: id -> record; tasks that have not ended are absent. Raises: BusUnavailable.

    Any replica of the stream may answer, and one that lags may miss a new record; `read_end` asks the stream's leader.
    """
    ids = list(tasks)
    found: dict[str, TaskEnd] = {}
    for start in range(0, len(ids), _BATCH):
        batch = [subjects.end(task) for task in ids[start : start + _BATCH]]
        for data in await read_last_of(bus, subjects.TASKS, batch):
            end = decoding.end(data)
            if not isinstance(end, Unreadable):
                found[end.id] = end
    return found


async def write_end(bus: Bus, end: TaskEnd) -> bool:
    """Write the final state of a task; False when it has one already, which stands. Raises: BusUnavailable."""
    data = encode(end)
    ttl_s = end_ttl_s(len(data), bus.config)
    try:
        await bus.store(subjects.end(end.id), data, expect_last=0, ttl_s=ttl_s, resend=True)
    except WrongSequence:
        if await read_end(bus, end.id) is None:
            # The conflicting record was never committed: a partitioned server was still the stream's leader.
            raise BusUnavailable(f"the bus does not know yet whether {end.id} has ended; try again shortly") from None
        return False
    return True


async def remove_waiting(bus: Bus, task: str) -> None:
    """Remove a task from its lane and its schedule. Raises: BusUnavailable, ApiError."""
    for stream, pattern in (
        (subjects.WORK, subjects.any_lane_of(task)),
        (subjects.LATER, subjects.any_later_of(task)),
    ):
        await bus.purge(stream, pattern)


def failed(task: Task, now: float, code: str, message: str, state: str = "failed") -> TaskEnd:
    """The end record of a task that never ran."""
    return TaskEnd(
        id=task.id,
        kind=task.kind,
        state=state,
        submitted_at=task.submitted_at,
        ended_at=now,
        error=TaskError(code, message),
    )
