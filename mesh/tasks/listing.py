"""The tasks of the mesh, page by page. What a page costs does not depend on how many tasks there are.

Tasks are listed in the order in which they move on, so that none is missed: at the ingress, delayed, in the lanes,
ended; within each of these by sequence. Each place is found by the subjects of its stream:

- A kind selects by subject at the ingress and in the lanes.
- The running tasks of a lane lie between the last message that its consumer delivered and the one up to which all are
  acknowledged; a task that has run for less than 100 ms counts as queued.
- The final state and the node of a task that has ended are in its record only, and so is the kind of a delayed task: a
  page examines at most EXAMINED records for them, and its cursor goes on from there.

A task that ends between two pages may be in both. Copies of the bus that lag may miss the newest tasks.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, NamedTuple

from mesh import decoding, subjects
from mesh.bus.jetstream import MAX_SEQUENCE
from mesh.bus.pages import read_last_of, read_page
from mesh.bus.replies import StoredMessage
from mesh.decoding import Unreadable
from mesh.errors import BusUnavailable, Fault, bad_input
from mesh.membership.member import Member
from mesh.messages import Task, TaskEnd, TaskState
from mesh.scheduling.placement import warnings
from mesh.task_states import FINAL, State
from mesh.tasks import records
from mesh.tasks.status import epoch, error_document
from mesh.views import TaskFilter, TaskPage, TaskSummary

if TYPE_CHECKING:
    from mesh.bus.client import Bus

DEFAULT_LIMIT, MAX_LIMIT = 100, 500
NOBODY = "no node now in the mesh can ever run it"
#: The limits of one page: records examined, and bytes read.
EXAMINED, EXAMINED_BYTES = 2000, 4 << 20
#: Records read with one request.
_BATCH = 250
#: Places in the order of the list: ingress, delayed, queued in lanes, running in lanes, ended.
_INGRESS, _DELAYED, _QUEUED, _RUNNING, _ENDED = "idqre"
_CURSOR = re.compile(r"([idqre])([0-9]{1,19})", re.ASCII)


class Cursor(NamedTuple):
    """Where a page begins: after this sequence of this place."""

    place: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.place}{self.sequence}"


class _Found(NamedTuple):
    """A task at a sequence; None for one that the filter leaves out."""

    sequence: int
    task: TaskSummary | None


class _Part(NamedTuple):
    """The next records of a place, examined, and whether there are more."""

    found: list[_Found]
    more: bool


def places(filters: TaskFilter) -> str:
    """The places where tasks of this filter can be, in the order of the list. Pure."""
    if filters.state in FINAL:
        return _ENDED
    if filters.state == State.RUNNING:
        return _RUNNING
    if filters.state == State.QUEUED:
        return "" if filters.node else _INGRESS + _DELAYED + _QUEUED
    return _RUNNING + _ENDED if filters.node else _INGRESS + _DELAYED + _QUEUED + _ENDED


def start(filters: TaskFilter, limit: int, after: str) -> Cursor | None:
    """Where the page begins; None when there can be no such task. Raises: BadInput with every fault. Pure."""
    faults: list[Fault] = []
    if filters.state and filters.state not in set(State):
        faults.append(Fault("state", f"must be one of {', '.join(State)}"))
    if filters.kind and not subjects.is_token(filters.kind):
        faults.append(Fault("kind", "must be 1 to 64 letters, digits, '_' or '-'"))
    if not (math.isfinite(filters.min_age_s) and filters.min_age_s >= 0):
        faults.append(Fault("min_age", "must be a number of seconds from 0"))
    if not 1 <= limit <= MAX_LIMIT:
        faults.append(Fault("limit", f"must be a whole number from 1 to {MAX_LIMIT}"))
    order = places(filters)
    match = _CURSOR.fullmatch(after)
    if after and (match is None or match[1] not in order):
        faults.append(Fault("after", "must be the `next` of an earlier page with the same filters"))
    if faults:
        raise bad_input("The query is not valid", faults)
    if match is not None:
        return Cursor(match[1], int(match[2]))
    return Cursor(order[0], 0) if order else None


async def page(
    bus: Bus,
    filters: TaskFilter,
    nodes: Collection[str],
    limit: int,
    after: str,
    members: Sequence[Member] | None = None,
) -> TaskPage:
    """The next tasks of the list. `nodes`: ids of the nodes that `filters.node` means; `members`: if given, a task that
    waits and that none of them can ever run has a note that says so.

    Raises: BadInput; BusUnavailable.
    """
    cursor = start(filters, limit, after)
    now = await bus.clock(subjects.WORK).earliest() if filters.min_age_s else 0.0
    reader = _Reader(bus, filters, nodes, now, members)
    order = places(filters)
    found: list[TaskSummary] = []
    while cursor is not None:
        following = order[order.index(cursor.place) + 1 :]
        if len(found) == limit or reader.is_exhausted:
            if await reader.has_more(cursor):
                break
            cursor = Cursor(following[0], 0) if following else None
            continue
        part = await reader.read(cursor, limit - len(found))
        for sequence, task in part.found:
            cursor = Cursor(cursor.place, sequence)
            if task is not None:
                found.append(task)
                if len(found) == limit:
                    break
        is_read = not part.more and (not part.found or cursor.sequence == part.found[-1].sequence)
        if is_read:
            cursor = Cursor(following[0], 0) if following else None
    return TaskPage(tuple(found), str(cursor) if cursor else "")


class _Reader:
    """Reads the places for one page, up to the limits of what it examines."""

    def __init__(
        self, bus: Bus, filters: TaskFilter, nodes: Collection[str], now: float, members: Sequence[Member] | None
    ) -> None:
        self._bus, self._filters, self._nodes, self._now, self._members = bus, filters, nodes, now, members
        self._notes: dict[tuple[str, str], str] = {}
        self._examined = self._bytes = 0
        self._reads = {
            _INGRESS: self._ingress, _DELAYED: self._delayed, _QUEUED: self._lanes, _RUNNING: self._running,
            _ENDED: self._ended,
        }  # fmt: skip

    @property
    def is_exhausted(self) -> bool:
        """Whether this page has examined all that a page may."""
        return self._examined >= EXAMINED or self._bytes >= EXAMINED_BYTES

    async def has_more(self, cursor: Cursor) -> bool:
        """Whether there is any record after `cursor` at its place."""
        if cursor.place == _RUNNING:
            return bool((await self._running_messages(cursor.sequence, 1))[0])
        stream, subject = self._subject(cursor.place)
        return bool((await read_page(self._bus, stream, subject, cursor.sequence, 1))[0])

    async def read(self, cursor: Cursor, count: int) -> _Part:
        """The next records at the cursor's place, `count` of them unless a filter leaves some out."""
        return await self._reads[cursor.place](cursor.sequence, count)

    def _subject(self, place: str) -> tuple[str, str]:
        """(stream, subjects of the records of a place)"""
        kind = self._filters.kind
        return {
            _INGRESS: (subjects.WORK, subjects.ingress(kind) if kind else subjects.WORK_SUBJECTS[0]),
            _DELAYED: (subjects.LATER, subjects.any_later()),
            _QUEUED: (subjects.WORK, subjects.any_lane(kind)),
            _ENDED: (subjects.TASKS, subjects.TASKS_SUBJECTS[1]),
        }[place]

    async def _page(self, place: str, after: int, count: int) -> tuple[list[StoredMessage], bool]:
        stream, subject = self._subject(place)
        left = EXAMINED_BYTES - self._bytes
        messages, more = await read_page(self._bus, stream, subject, after, min(count, _BATCH), left)
        self._count(messages)
        return messages, more

    def _count(self, messages: Sequence[StoredMessage]) -> None:
        self._examined += len(messages)
        self._bytes += sum(len(message.data) for message in messages)

    def _selects(self, task: TaskSummary, message: StoredMessage) -> bool:
        filters = self._filters
        return (
            filters.state in ("", task.state)
            and filters.kind in ("", task.kind)
            and (not filters.node or task.node in self._nodes)
            and (not filters.min_age_s or self._now - message.stored_at >= filters.min_age_s)
        )

    def _only(self, task: TaskSummary | None, message: StoredMessage) -> TaskSummary | None:
        return task if task is not None and self._selects(task, message) else None

    # --- the places ---------------------------------------------------------------------------------
    async def _ingress(self, after: int, count: int) -> _Part:
        messages, more = await self._page(_INGRESS, after, _BATCH if self._filters.min_age_s else count)
        mesh_epoch = await epoch(self._bus) if messages else ""
        found: list[_Found] = []
        for message in messages:
            task = TaskSummary(
                id=subjects.task_id(mesh_epoch, message.sequence), kind=message.subject.partition(".")[2],
                state="queued", submitted_at=message.stored_at, note="at the ingress",
            )  # fmt: skip
            found.append(_Found(message.sequence, self._only(task, message)))
        return _Part(found, more)

    async def _delayed(self, after: int, count: int) -> _Part:
        drops = self._filters.kind or self._filters.min_age_s
        messages, more = await self._page(_DELAYED, after, _BATCH if drops else count)
        return _Part(
            [_Found(message.sequence, self._only(_of_delayed(message), message)) for message in messages], more
        )

    async def _lanes(self, after: int, count: int) -> _Part:
        drops = self._filters.state or self._filters.min_age_s
        messages, more = await self._page(_QUEUED, after, _BATCH if drops else count)
        return _Part(await self._with_records(messages), more)

    async def _running(self, after: int, count: int) -> _Part:
        messages, more = await self._running_messages(after, _BATCH)
        self._count(messages)
        return _Part(await self._with_records(messages), more)

    async def _running_messages(self, after: int, count: int) -> tuple[list[StoredMessage], bool]:
        """(the next messages after sequence `after` that lanes delivered and nobody acknowledged, are there more)"""
        listed = await self._bus.list_consumers(subjects.WORK)
        if listed.silent:
            raise BusUnavailable("the bus does not say right now which tasks are running; try again shortly")
        windows = [
            (subjects.lane_filter(*lane), max(after, consumer.settled_to), consumer.delivered_to)
            for consumer in listed.consumers
            if consumer.ack_pending
            and (lane := subjects.split_durable(consumer.name)) is not None
            and self._filters.kind in ("", lane[0])
            and consumer.delivered_to > after
        ]
        pages = await asyncio.gather(
            *(read_page(self._bus, subjects.WORK, name, first, count, EXAMINED_BYTES) for name, first, _ in windows)
        )
        # What comes after a page that is not the whole of its window is left to the next page.
        cut = (
            part[-1].sequence
            for (_, _, last), (part, more) in zip(windows, pages, strict=True)
            if more and part and part[-1].sequence < last
        )
        read_to = min(cut, default=MAX_SEQUENCE)
        messages = [
            message
            for (_, _, last), (part, _) in zip(windows, pages, strict=True)
            for message in part
            if message.sequence <= min(last, read_to)
        ]
        return sorted(messages, key=lambda message: message.sequence), read_to < MAX_SEQUENCE

    async def _with_records(self, messages: Sequence[StoredMessage]) -> list[_Found]:
        """The tasks of messages in lanes, as their records say they are; those that have ended are listed there."""
        tasks = [(message, decoding.lane_task(message.subject, message.data)) for message in messages]
        ids = [task.id for _, task in tasks if not isinstance(task, Unreadable)]
        names = [name for task in ids for name in (subjects.state(task), subjects.end(task))]
        states: dict[str, TaskState] = {}
        ended: set[str] = set()
        for data in await read_last_of(self._bus, subjects.TASKS, names) if names else ():
            if not isinstance(end := decoding.end(data), Unreadable):
                ended.add(end.id)
            elif not isinstance(state := decoding.state(data), Unreadable):
                states[state.id] = state
        return [
            _Found(
                message.sequence,
                None
                if isinstance(task, Unreadable) or task.id in ended
                else self._only(_of_waiting(task, states.get(task.id), self._note(task)), message),
            )
            for message, task in tasks
        ]

    def _note(self, task: Task) -> str:
        """That no node can run a task; one look at the nodes for each kind and pool."""
        key = (task.kind, task.pool)
        if self._members is not None and key not in self._notes:
            impossible = warnings(task.requires, task.kind, self._members)
            self._notes[key] = NOBODY if impossible else ""
        return self._notes.get(key, "")

    async def _ended(self, after: int, count: int) -> _Part:
        filters = self._filters
        filtered = filters.state or filters.kind or filters.node or filters.min_age_s
        messages, more = await self._page(_ENDED, after, _BATCH if filtered else count)
        return _Part([_Found(message.sequence, self._only(_of_end(message), message)) for message in messages], more)


_FIELDS = frozenset(field.name for field in fields(TaskSummary)) - {"error"}
_FROM_END = tuple(name for name in TaskEnd.__struct_fields__ if name in _FIELDS)
_FROM_STATE = tuple(name for name in TaskState.__struct_fields__ if name in _FIELDS)


def _of_end(message: StoredMessage) -> TaskSummary | None:
    if not message.data:
        return None  # it says only that the record has expired
    _, submitter, number, _ = message.subject.split(".")
    end = records.end_of(subjects.task_id(submitter, number), message.data)
    copied = {name: getattr(end, name) for name in _FROM_END}
    return TaskSummary(**copied, progress=1.0 if end.state == "done" else 0.0, error=error_document(end))


def _of_waiting(task: Task, state: TaskState | None, note: str) -> TaskSummary:
    if state is not None and state.state == "running":
        return TaskSummary(**{name: getattr(state, name) for name in _FROM_STATE}, error=error_document(state))
    return TaskSummary(
        id=task.id, kind=task.kind, state="queued", submitted_at=task.submitted_at, note=note,
        attempt=state.attempt if state else 0, error=error_document(state) if state else None,
    )  # fmt: skip


def _of_delayed(message: StoredMessage) -> TaskSummary | None:
    task = decoding.task(message.data)
    if isinstance(task, Unreadable):
        return None  # the node that takes the message makes it a dead letter
    return TaskSummary(
        id=task.id, kind=task.kind, state="queued", submitted_at=task.submitted_at, note="waits for its time"
    )
