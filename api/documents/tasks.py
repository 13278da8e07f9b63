"""The documents of tasks, blobs and dead letters, and how they are made of the mesh's views and records. Pure."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from api.documents.base import Document, derive, fill, rfc3339
from api.documents.errors import ErrorBody, ErrorDoc, task_error
from mesh import decoding
from mesh.decoding import Unreadable
from mesh.messages import BlobRef, DeadLetter, Raw, TaskEnd, TaskError
from mesh.node_api import API_PREFIX
from mesh.task_states import FINAL
from mesh.views import Accepted, DeadPage, SubmitRequest, TaskPage, TaskSummary, TaskView

State = Annotated[str, Meta(description="queued, running, done, failed, cancelled or expired")]


class Links(Document, frozen=True):
    """The paths of a task."""

    status: str
    result: str
    cancel: str
    events: str


SubmitBody = derive(
    "SubmitBody",
    SubmitRequest,
    absent=("workload_type", "kind"),
    replace={"kind": Annotated[str, Meta(description="another name of workload_type", min_length=1)]},
    more={"workload_type": Annotated[str, Meta(description="the kind of work, in any case; required", min_length=1)]},
    is_request=True,
)

SubmittedDoc = derive("SubmittedDoc", Accepted, replace={"state": State}, more={"links": Links})

StatusDoc = derive(
    "StatusDoc",
    TaskView,
    without=("result_ref",),
    absent=("text", "text_from", "result", "content_type", "info"),
    replace={"state": State, "error": ErrorBody | None},
    more={"links": Links},
)

BlobDoc = derive("BlobDoc", BlobRef)


TaskSummaryDoc = derive(
    "TaskSummaryDoc", TaskSummary, replace={"state": State, "error": ErrorBody | None}, more={"links": Links}
)

Next = Annotated[str | None, Meta(description="give it as `after` for the next page; null on the last one")]


class TaskListDoc(Document, frozen=True):
    """A page of tasks: first those that wait or run, then those that have ended, each the oldest first."""

    tasks: list[TaskSummaryDoc]
    """may be fewer than `limit`, even none, while `next` is not null: a page examines a limited number of records"""
    next: Next


class DeadLinks(Document, frozen=True):
    """The paths of a dead letter."""

    show: str
    replay: str


class DeadDoc(Document, frozen=True, kw_only=True):
    """A task that used up its attempts, or that crashed its workers."""

    id: str
    kind: str
    died_at: str
    """RFC 3339, UTC"""
    attempt: int
    node: str
    """id of the node of the last attempt"""
    error: ErrorBody | None
    """why the last attempt failed"""
    requires: dict[str, Any]
    """what its node had to have"""
    links: DeadLinks
    payload: Any = UNSET
    """present when one dead letter is asked for and its payload is small"""
    payload_blob: str | UnsetType = UNSET
    """present when one dead letter is asked for: the blob that holds its large payload"""


class DeadListDoc(Document, frozen=True):
    """A page of the dead letters."""

    dead: list[DeadDoc]
    """oldest first"""
    next: Next


def links(task: str) -> Links:
    """The paths of a task."""
    base = f"{API_PREFIX}/workload/{task}"
    return Links(status=f"{base}/status", result=f"{base}/result", cancel=base, events=f"{base}/events")


def submitted(accepted: Accepted) -> Struct:
    """SubmittedDoc"""
    return fill(SubmittedDoc, accepted, links=links(accepted.id))


def status(view: TaskView, with_result: bool = True) -> Struct:
    """StatusDoc; `result` is present only when the task is done, its result is a small value, and `with_result`."""
    values: dict[str, Any] = {
        "links": links(view.id),
        "waiting_helps": view.waiting_helps and view.state not in FINAL,
    }
    if not view.text:
        values |= {"text": UNSET, "text_from": UNSET}
    if not view.content_type:
        values |= {"content_type": UNSET, "info": UNSET}
    if view.content_type or view.state != "done" or view.result_ref is not None or not with_result:
        values["result"] = UNSET
    return fill(StatusDoc, view, **values)


def task_list(page: TaskPage) -> TaskListDoc:
    """TaskListDoc"""
    return TaskListDoc([fill(TaskSummaryDoc, task, links=links(task.id)) for task in page.tasks], page.next or None)


def dead_list(page: DeadPage) -> DeadListDoc:
    """DeadListDoc"""
    return DeadListDoc([dead(letter) for letter in page.letters], page.next or None)


def no_result(end: TaskEnd) -> ErrorDoc:
    """The answer about a task that ended without a result."""
    messages = {"cancelled": "The task was cancelled", "expired": "The task was not started in time"}
    error = end.error or TaskError(end.state, messages.get(end.state, "The task failed"))
    return ErrorDoc(task_error(error), id=end.id, state=end.state)


def readable_payload(packed: Raw) -> Any:
    """The payload of a task, or its bytes in base64 when it can't be read."""
    value = decoding.anything(packed) if len(packed) else None
    return {"base64": base64.b64encode(bytes(packed)).decode()} if isinstance(value, Unreadable) else value


def dead(letter: DeadLetter, with_payload: bool = False) -> DeadDoc:
    """DeadDoc; without the payload unless `with_payload`."""
    task, end = letter.task, letter.end
    base = f"{API_PREFIX}/dead/{task.id}"
    payload: Any = UNSET
    payload_blob: str | UnsetType = UNSET
    if with_payload and letter.raw:  # the message could not be read as a task
        payload = {"base64": base64.b64encode(letter.raw).decode()}
    elif with_payload and task.payload_ref is not None:
        payload_blob = task.payload_ref.blob
    elif with_payload:
        payload = readable_payload(task.payload)
    return DeadDoc(
        id=task.id,
        kind=task.kind,
        died_at=rfc3339(letter.died_at) or "",
        attempt=end.attempt,
        node=end.node,
        error=task_error(end.error) if end.error else None,
        requires=task.requires,
        links=DeadLinks(show=base, replay=f"{base}/replay"),
        payload=payload,
        payload_blob=payload_blob,
    )
