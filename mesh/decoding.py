"""Decodes what comes from outside: bus messages, KV records and stream messages. No other module of the mesh does.

A decoder returns the value, or `Unreadable` with the reason; it never raises. What it returns has been checked: ids and
names may be used in subjects, file names and keys. Pure, except that an ignored record is logged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from mesh.lanes import requirement_faults
from mesh.messages import BlobRef, Task
from mesh.subjects import URGENCIES, NotAToken, is_task_id, is_token, lane_subject, later_due

log = logging.getLogger(__name__)

Value = TypeVar("Value")

#: The largest accepted `max_attempts` of a task.
MAX_ATTEMPTS = 100
#: How many (key, revision) pairs of ignored records are remembered, so that each is logged once.
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why bytes are not a valid value."""

    reason: str


class Decoder(Generic[Value]):
    """The decoder of one wire type: `decoder(data)` returns the value or `Unreadable`."""

    __slots__ = ("_decode", "_fault", "name")

    def __init__(self, type_: Any, name: str, fault: Callable[[Value], str] = lambda _: "", json: bool = False) -> None:
        """`name`: what people call it; `fault(value)`: why the value may not be used, "" when it may."""
        module = msgspec.json if json else msgspec.msgpack
        self._decode: Callable[[bytes], Value] = module.Decoder(type_).decode
        self._fault, self.name = fault, name

    def __call__(self, data: bytes | msgspec.Raw) -> Value | Unreadable:
        """The value, or why there is none."""
        try:
            value = self._decode(data)  # type: ignore[arg-type]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            # Text that is not UTF-8 raises UnicodeDecodeError, which is a ValueError and no MsgspecError.
            return Unreadable(f"is not a {self.name}: {error}")
        fault = self._fault(value)
        return Unreadable(f"is not a valid {self.name}: {fault}") if fault else value


# --- checks -----------------------------------------------------------------------------------------
_is_name = lru_cache(maxsize=4096)(is_token)  # for kinds, of which there are few


def _task_fault(task: Task) -> str:
    # Every node decodes every task that it runs: what a task leaves out is not looked at.
    if not is_task_id(task.id):
        return f"{task.id!r:.80} is not a task id"
    if not _is_name(task.kind):
        return f"{task.kind!r:.80} can't be a kind"
    if not 0 <= task.max_attempts <= MAX_ATTEMPTS:
        return f"max_attempts must be from 0 to {MAX_ATTEMPTS}"
    if not 0.0 <= task.submitted_at + task.timeout_s + task.expires_at < math.inf or task.timeout_s < 0.0:
        return "submitted_at, timeout_s and expires_at must be numbers of seconds from 0"
    if task.requires and (faults := requirement_faults(task.requires)):
        return f"{faults[0].field:.80} {faults[0].problem}"
    if task.payload_ref is not None and (fault := _blob_fault(task.payload_ref)):
        return fault
    if task.blobs and not all(map(is_token, task.blobs)):
        return "it names a blob whose id can't be one"
    return ""


def _blob_fault(reference: BlobRef | None) -> str:
    if reference is None or is_token(reference.blob):
        return ""
    return f"{reference.blob!r:.80} can't be the id of a blob"


# --- tasks ------------------------------------------------------------------------------------------
task: Decoder[Task] = Decoder(Task, "task", _task_fault)


def lane_task(subject: str, data: bytes) -> Task | Unreadable:
    """The task in a message of a lane. It must be stored under its own subject, by which others find it."""
    return _stored_as(subject, data, lambda found, lane: lane)


def due_task(subject: str, data: bytes) -> Task | Unreadable:
    """The task in a message of LATER that is due. It must have a lane to go to."""
    return _stored_as(subject, data, lambda found, lane: later_due(found.id))


def _stored_as(subject: str, data: bytes, expected: Callable[[Task, str], str]) -> Task | Unreadable:
    found = task(data)
    if isinstance(found, Unreadable):
        return found
    try:
        lane = lane_subject(found.kind, found.pool, found.urgency, found.id)
    except NotAToken as error:
        return Unreadable(f"is not a valid task: {error}")
    if found.urgency not in URGENCIES or subject != expected(found, lane):
        return Unreadable("is not a valid task: what it says of itself is not what its subject says")
    return found
