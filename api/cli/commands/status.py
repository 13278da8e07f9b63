"""The status of a task: where it is, since when, what it waits for, how it ended."""

from __future__ import annotations

import argparse
import json
from time import time
from typing import TYPE_CHECKING

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import duration, moment, size

if TYPE_CHECKING:
    from mesh.views import TaskView

HELP = "the status of a task"
MAX_RESULT_CHARACTERS = 200


def add(parser: argparse.ArgumentParser) -> None:
    """`status ID`"""
    parser.add_argument("id", metavar="ID", help="the task's id, or the number that a plain NATS client got as answer")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print it. Raises: NotFound, BusUnavailable."""
    from mesh.client import Mesh

    async with Mesh(args.url) as mesh:
        view = await mesh.status(args.id)
    if out.as_json:
        out.document(view)
    else:
        out.facts(facts(view, time()))
    return OK


def facts(view: TaskView, now: float) -> list[tuple[str, object]]:
    """A task as names and values; a value that is not known is empty."""
    took_s = view.ended_at - view.started_at if view.started_at and view.ended_at else -1.0
    error = view.error or {}
    result = ""
    if view.result_ref is not None:
        result = f"{size(view.result_ref.size)} {view.content_type}: queztl result {view.id} -o FILE"
    elif view.content_type:
        result = f"{view.content_type}: queztl result {view.id} -o FILE"
    elif view.state == "done":
        result = json.dumps(view.result, ensure_ascii=False, default=str)
        if len(result) > MAX_RESULT_CHARACTERS:
            result = f"{result[:MAX_RESULT_CHARACTERS]}… (queztl result {view.id})"
    return [
        ("id", view.id),
        ("kind", view.kind),
        ("state", view.state),
        ("attempt", view.attempt or ""),
        ("node", view.node),
        ("submitted", moment(view.submitted_at, now) if view.submitted_at else ""),
        ("started", moment(view.started_at, now) if view.started_at else ""),
        ("ended", moment(view.ended_at, now) if view.ended_at else ""),
        ("took", duration(took_s) if took_s >= 0 else ""),
        ("progress", f"{view.progress:.0%}" if view.progress and view.state == "running" else ""),
        ("note", view.note),
        ("error", "" if error.get("message") == view.state else error.get("message", "")),
        *(("fault", f"{fault['field']}: {fault['problem']}") for fault in error.get("faults", ())),
        *(("waits for", reason) for reason in view.waiting_for),
        ("", "" if view.waiting_helps or view.state != "queued" else "no node now in the mesh can ever run it"),
        ("result", result),
        ("info", json.dumps(view.info, ensure_ascii=False, default=str) if view.info else ""),
    ]
