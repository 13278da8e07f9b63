"""Print each change of a task on a line, until it has ended. The exit code is 0 only when it is done."""

from __future__ import annotations

import argparse
from time import localtime, strftime
from typing import TYPE_CHECKING

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK, TASK_FAILED

if TYPE_CHECKING:
    from mesh.views import TaskView

HELP = "follow a task until it has ended"
BY_LINE = True


def add(parser: argparse.ArgumentParser) -> None:
    """`watch ID`"""
    parser.add_argument("id", metavar="ID")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print every change; with --json one document a line. Raises: NotFound, BusUnavailable."""
    from mesh.client import Mesh

    state, shown = "", 0
    async with Mesh(args.url) as mesh:
        async for view in mesh.watch(args.id):
            state = view.state
            if out.as_json:
                out.document(view)
            elif view.text:
                more, shown = new_text(view, shown)
                out.piece(more)
            else:
                if shown:
                    out.line()
                    shown = 0
                out.line(f"{strftime('%H:%M:%S', localtime())}  {sentence(view)}")
    return OK if state == "done" else TASK_FAILED


def new_text(view: TaskView, shown: int) -> tuple[str, int]:
    """(what the task has written after its first `shown` characters, how many characters are shown then).

    A task that starts again on another node starts on a new line.
    """
    end = view.text_from + len(view.text)
    if end < shown:
        return "\n" + view.text, end
    gap = "…" if view.text_from > shown else ""
    return gap + view.text[max(0, shown - view.text_from) :], end


def sentence(view: TaskView) -> str:
    """One state of a task on one line."""
    parts = [f"{view.state:<9}"]
    if view.node:
        parts.append(f"on {view.node}")
    if view.attempt > 1:
        parts.append(f"attempt {view.attempt}")
    if view.state == "running" and view.progress:
        parts.append(f"{view.progress:.0%}")
    reason = (view.error or {}).get("message", "")
    parts += [text for text in (view.note, reason) if text and text != view.state]
    parts += view.waiting_for
    return "  ".join(parts).rstrip()
