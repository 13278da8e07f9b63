"""The status of a task for users: where it is, and why it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from mesh import decoding, subjects
from mesh.coordination import MeshRecord
from mesh.decoding import Unreadable, readable_of
from mesh.errors import NotFound, TaskFailed
from mesh.membership.member import REGISTERED, Member
from mesh.membership.mesh_record import read_mesh_record
from mesh.messages import (
    CLAIM_CHECK_BYTES,
    NodeRecord,
    Task,
    TaskEnd,
    TaskState,
)
from mesh.scheduling.placement import unmet
from mesh.task_states import FINAL
from mesh.tasks import records
from mesh.views import TaskView

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message

#: Without an update for this long a watch reads the records, seconds: an update may be lost.
RECHECK_S = 5.0


#: Returns the current members of the mesh.
Members = Callable[[], Sequence[Member]]


#: The fields that a view has under the same name and with the same meaning as the record that it is made of.
_VIEWED = frozenset(field.name for field in fields(TaskView)) - {"result", "error"}
_FROM_END = tuple(field for field in TaskEnd.__struct_fields__ if field in _VIEWED)
_FROM_STATE = tuple(field for field in TaskState.__struct_fields__ if field in _VIEWED)


def of_end(end: TaskEnd) -> TaskView:
    """The view of a task that has ended. Pure."""
    small = len(end.result) and len(end.result) <= CLAIM_CHECK_BYTES and not end.content_type
    return TaskView(
        **_copied(end, _FROM_END),
        progress=1.0 if end.state == "done" else 0.0,
        result=None if not small or isinstance(result := decoding.anything(end.result), Unreadable) else result,
        error=error_document(end),
        waiting_helps=False,
    )


def of_state(state: TaskState) -> TaskView:
    """The view of a task that has a `.state` record. Pure."""
    return TaskView(**_copied(state, _FROM_STATE), error=error_document(state))


def _copied(record: TaskEnd | TaskState, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}


#: Final states whose sentence needs no error message, unless the error has another code than the state.
_ENDED = {"cancelled": "was cancelled", "expired": "expired: it was not started in time"}


def failure(end: TaskEnd) -> TaskFailed:
    """The error of a task that ended without a result, with one sentence about it."""
    ended, error = _ENDED.get(end.state, end.state), end.error
    if error is None or (error.code == end.state and end.state in _ENDED):
        return TaskFailed(f"task {end.id} {ended}", end.id, end.state, error.message if error else end.state)
    return TaskFailed(f"task {end.id} {ended}: {error.message}", end.id, end.state, error.message)


def error_document(record: TaskEnd | TaskState) -> dict[str, Any] | None:
    """The error of a record as plain data; None when it has none. Pure."""
    if record.error is None:
        return None
    return {
        "code": record.error.code,
        "message": record.error.message,
        "faults": [{"field": field, "problem": problem} for field, problem in record.error.faults],
    }


async def status(bus: Bus, task: str, members: Members | None = None) -> TaskView:
    """All that is known of a task. A bare number is the sequence of a message in this mesh's WORK stream.

    `members`: the members as a node's registry knows them, which includes deaths; None: the node records are read.
    Raises: NotFound, BusUnavailable.
    """
    if task.isascii() and task.isdigit() and len(task) < 19:
        return await _of_ingress(bus, int(task), members)
    try:
        subjects.split_task_id(task)
    except ValueError:
        raise NotFound(f"{task[:80]!r} is not a task id; ids look like c0ffee1234-1") from None
    # The end record is read first, because most tasks have ended. A task may move on between two reads, but only
    # forwards (schedule, lane, end), and it is stored in the new place before it is removed from the old one. So the
    # second pass finds a task that the first one missed.
    for _ in range(2):
        if (end := await records.read_end(bus, task)) is not None:
            return of_end(end)
        state, waiting = await asyncio.gather(records.read_state(bus, task), records.read_waiting(bus, task))
        if state is not None and state.state not in FINAL and (state.state == "running" or waiting is None):
            return of_state(state)
        if waiting is not None:
            return await _of_waiting(bus, waiting, state, members)
        if (delayed := await records.read_delayed(bus, task)) is not None:
            return await _of_delayed(bus, delayed, members)
    if (end := await records.read_end(bus, task)) is not None:
        return of_end(end)
    raise NotFound(f"there is no task {task}; results are kept for an hour, small ones for ten minutes")


def _queued(task: Task, note: str = "", **more: Any) -> TaskView:
    return TaskView(id=task.id, kind=task.kind, state="queued", submitted_at=task.submitted_at, note=note, **more)


async def _of_waiting(bus: Bus, task: Task, state: TaskState | None, members: Members | None) -> TaskView:
    reasons, helps = unmet(task.requires, task.kind, members() if members else await recorded_members(bus))
    view = _queued(task, waiting_for=tuple(reasons), waiting_helps=helps)
    if state is None:
        return view
    return replace(view, attempt=state.attempt, error=error_document(state))


async def _of_delayed(bus: Bus, task: Task, members: Members | None) -> TaskView:
    """What else it waits for is said only when no node could run it at its time."""
    reasons, helps = unmet(task.requires, task.kind, members() if members else await recorded_members(bus))
    return _queued(task, "waits for its time", waiting_for=() if helps else tuple(reasons), waiting_helps=helps)


async def recorded_members(bus: Bus) -> list[Member]:
    """The nodes as their records describe them: whether they live is not known. Raises: BusUnavailable."""
    entries = await bus.kv(subjects.KV_NODES).entries()
    return [_recorded_member(node) for node in readable_of(decoding.node, entries)]


def _recorded_member(node: NodeRecord) -> Member:
    never_connected = node.registered_by and not node.incarnation
    return Member(node, REGISTERED if never_connected else node.state)


async def epoch(bus: Bus) -> str:
    """The submitter token of task ids that the ingress gives: another one for each WORK stream."""
    record = await read_mesh_record(bus)
    return record.epoch if record is not None else MeshRecord().epoch


async def _of_ingress(bus: Bus, sequence: int, members: Members | None) -> TaskView:
    task = subjects.task_id(await epoch(bus), sequence)
    try:
        return await status(bus, task, members)
    except NotFound:
        pass
    stored = await bus.read_at(subjects.WORK, sequence)
    if stored is None:
        # The ingress stores the task before it removes this message: by now its records exist, if it does.
        try:
            return await status(bus, task, members)
        except NotFound:
            raise NotFound(f"there is no task {sequence}; results are kept for an hour") from None
    if stored.subject.count(".") == 1:
        return TaskView(id=task, kind=stored.subject.partition(".")[2], state="queued", note="at the ingress")
    waiting = decoding.lane_task(stored.subject, stored.data)
    if isinstance(waiting, Unreadable):
        raise NotFound(f"the message {sequence} {waiting.reason}; it becomes a dead letter")
    return await status(bus, waiting.id, members)


async def watch(bus: Bus, task: str) -> AsyncIterator[TaskView]:
    """The task as it is now and after each change, until it has ended. Raises: NotFound, BusUnavailable."""
    updates: asyncio.Queue[TaskView] = asyncio.Queue(maxsize=1000)

    def on_update(message: Message) -> None:
        if not message.data or updates.full():
            return  # an expiry marker, or a slow reader: the periodic check below still finds the end
        if message.subject.endswith(".end"):
            updates.put_nowait(of_end(records.end_of(first.id, message.data)))
        elif not isinstance(state := decoding.state(message.data), Unreadable):
            updates.put_nowait(of_state(state))

    first = await status(bus, task)
    submitter, number = subjects.split_task_id(first.id)
    subscription = await bus.subscribe(subjects.task_updates(submitter, number), on_update)
    try:
        view = await status(bus, first.id)
        yield view
        while view.state not in FINAL:
            try:
                async with asyncio.timeout(RECHECK_S):
                    view = await updates.get()
            except TimeoutError:
                fresh = await status(bus, first.id)
                if fresh == view:
                    continue
                view = fresh
            yield view
    finally:
        await subscription.close()
