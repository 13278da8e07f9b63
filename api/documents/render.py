"""From what the mesh knows to the documents of api.schema, as plain data. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mesh.messages import DeadLetter, TaskEnd, TaskError, decode_any
from mesh.node_api import API_PREFIX
from mesh.task_states import FINAL
from mesh.views import Accepted, TaskView


def rfc3339(at: float) -> str | None:
    """Unix seconds as RFC 3339 in UTC, to the millisecond; None for 0."""
    if not at:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def links(task: str) -> dict[str, str]:
    """Where to go on from a task."""
    base = f"{API_PREFIX}/workload/{task}"
    return {"status": f"{base}/status", "result": f"{base}/result", "cancel": base, "events": f"{base}/events"}


def submitted(accepted: Accepted) -> dict[str, Any]:
    """SubmittedDoc"""
    return {
        "id": accepted.id,
        "kind": accepted.kind,
        "state": accepted.state,
        "duplicate": accepted.duplicate,
        "links": links(accepted.id),
    }


def status(view: TaskView) -> dict[str, Any]:
    """StatusDoc; `result` is there only when the task is done and its result is a small value."""
    document: dict[str, Any] = {
        "id": view.id,
        "kind": view.kind,
        "state": view.state,
        "attempt": view.attempt,
        "node": view.node,
        "submitted_at": rfc3339(view.submitted_at),
        "started_at": rfc3339(view.started_at),
        "ended_at": rfc3339(view.ended_at),
        "progress": view.progress,
        "note": view.note,
    }
    if view.text:
        document["text"], document["text_from"] = view.text, view.text_from
    if view.content_type:
        document["content_type"], document["info"] = view.content_type, view.info
    elif view.state == "done" and view.result_ref is None:
        document["result"] = view.result
    document["error"] = error_body(view.error)
    document["waiting_for"] = list(view.waiting_for)
    document["waiting_helps"] = view.waiting_helps and view.state not in FINAL
    document["links"] = links(view.id)
    return document


def error_body(error: dict[str, Any] | None) -> dict[str, Any] | None:
    """ErrorBody of a view's error; faults may come as pairs or as objects."""
    if error is None:
        return None
    faults = [
        {"field": fault["field"], "problem": fault["problem"]}
        if isinstance(fault, dict)
        else {"field": str(fault[0]), "problem": str(fault[1])}
        for fault in error.get("faults") or ()
    ]
    return {"code": error.get("code", ""), "message": error.get("message", ""), "faults": faults}


def no_result(end: TaskEnd) -> dict[str, Any]:
    """ErrorDoc of a task that ended without a result."""
    words = {"cancelled": "The task was cancelled", "expired": "The task was not started in time"}
    error = end.error or TaskError(end.state, words.get(end.state, "The task failed"))
    return {"error": _task_error(error), "id": end.id, "state": end.state}


def dead(letter: DeadLetter, whole: bool = False) -> dict[str, Any]:
    """DeadDoc; the payload only when `whole`."""
    task, end = letter.task, letter.end
    base = f"{API_PREFIX}/dead/{task.id}"
    document: dict[str, Any] = {
        "id": task.id,
        "kind": task.kind,
        "died_at": rfc3339(letter.died_at),
        "attempt": end.attempt,
        "node": end.node,
        "error": _task_error(end.error) if end.error else None,
        "requires": task.requires,
        "links": {"show": base, "replay": f"{base}/replay"},
    }
    if whole and task.payload_ref is not None:
        document["payload_blob"] = task.payload_ref.blob
    elif whole:
        document["payload"] = decode_any(task.payload) if len(task.payload) else None
    return document


def _task_error(error: TaskError) -> dict[str, Any]:
    faults = [{"field": field, "problem": problem} for field, problem in error.faults]
    return {"code": error.code, "message": error.message, "faults": faults}
