"""What the bus knows of tasks: reading their records, ending them, and telling where they wait.

A task's truth is, in this order: its `.end` record, its `.state` record, its message in a lane, its schedule.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus.errors import WrongSequence
from mesh.bus.pages import read_last_of
from mesh.config import MeshConfig
from mesh.errors import BusUnavailable
from mesh.messages import (
    Task,
    TaskEnd,
    TaskError,
    TaskState,
    decode_end,
    decode_state,
    decode_task,
    encode,
)

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: End records under this size live shorter: they are the many small ones.
SMALL_BYTES = 1024
_BATCH = 256


def end_ttl_s(size: int, config: MeshConfig) -> int:
    """How long an `.end` record of `size` bytes lives."""
    return config.small_result_ttl_s if size < SMALL_BYTES else config.result_ttl_s


def end_headers(size: int, config: MeshConfig) -> dict[str, str]:
    """Headers of an `.end` record: written once, gone after its lifetime."""
    ttl_s = end_ttl_s(size, config)
    return {"Nats-Expected-Last-Subject-Sequence": "0", "Nats-TTL": f"{ttl_s}s"}


async def read_last(bus: Bus, stream: str, subject: str) -> bytes | None:
    """What a stream holds last on a subject; None: nothing, or a marker. Raises: BusUnavailable, ApiError."""
    stored = await bus.read_last(stream, subject)
    return stored.data or None if stored is not None else None


async def read_end(bus: Bus, task: str) -> TaskEnd | None:
    """How a task ended; None while it has not."""
    data = await read_last(bus, subjects.TASKS, subjects.end(task))
    return decode_end(data) if data else None


async def read_state(bus: Bus, task: str) -> TaskState | None:
    """A task's last `.state`; None when it has none (it waits, or runs for less than 100 ms)."""
    data = await read_last(bus, subjects.TASKS, subjects.state(task))
    return decode_state(data) if data else None


async def read_waiting(bus: Bus, task: str) -> Task | None:
    """The task as it lies in a lane (waiting or delivered, not acknowledged); None when it does not."""
    data = await read_last(bus, subjects.WORK, subjects.any_lane_of(task))
    return decode_task(data) if data else None


async def read_delayed(bus: Bus, task: str) -> Task | None:
    """The task as it waits for its time; None when it does not."""
    data = await read_last(bus, subjects.LATER, subjects.any_later_of(task))
    return decode_task(data) if data else None


async def read_ends(bus: Bus, tasks: Iterable[str]) -> dict[str, TaskEnd]:
    """The ends of many tasks at once; those that have not ended are absent.

    Any copy of the stream answers, and one that lags may not know of an end yet: `read_end` asks the one that leads.
    """
    wanted, found = list(tasks), {}
    for start in range(0, len(wanted), _BATCH):
        batch = [subjects.end(task) for task in wanted[start : start + _BATCH]]
        for data in await read_last_of(bus, subjects.TASKS, batch):
            end = decode_end(data)
            found[end.id] = end
    return found


async def write_end(bus: Bus, end: TaskEnd) -> bool:
    """Write a task's final state; False when somebody ended it first (that end stands). Raises: BusUnavailable."""
    data = encode(end)
    ttl_s = end_ttl_s(len(data), bus.config)
    try:
        await bus.store(subjects.end(end.id), data, expect_last=0, ttl_s=ttl_s, resend=True)
    except WrongSequence:
        if await read_end(bus, end.id) is None:
            # Refused for an end that was under way and never came to be: a server that was cut off still led.
            raise BusUnavailable(f"whether {end.id} has ended is not known yet; try again shortly") from None
        return False
    return True


async def remove_waiting(bus: Bus, task: str) -> None:
    """Take a task out of its lane and its schedule, wherever it is."""
    for stream, pattern in (
        (subjects.WORK, subjects.any_lane_of(task)),
        (subjects.LATER, subjects.any_later_of(task)),
    ):
        await bus.purge(stream, pattern)


def failed(task: Task, now: float, code: str, message: str, state: str = "failed") -> TaskEnd:
    """An end without a result, for a task that never ran."""
    return TaskEnd(
        id=task.id,
        kind=task.kind,
        state=state,
        submitted_at=task.submitted_at,
        ended_at=now,
        error=TaskError(code, message),
    )
