"""Each change of a task, a line each, until it has ended. The exit code is 0 only when it is done."""

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
                more, shown = news(view, shown)
                out.piece(more)
            else:
                if shown:
                    out.line()
                    shown = 0
                out.line(f"{strftime('%H:%M:%S', localtime())}  {sentence(view)}")
    return OK if state == "done" else TASK_FAILED


def news(view: TaskView, shown: int) -> tuple[str, int]:
    """(what a task has written since its first `shown` characters, how many those are now); one that begins again, on
    another node, begins a new line."""
    end = view.text_from + len(view.text)
    if end < shown:
        return "\n" + view.text, end
    gap = "…" if view.text_from > shown else ""
    return gap + view.text[max(0, shown - view.text_from) :], end


def sentence(view: TaskView) -> str:
    """One state of a task on one line."""
    words = [f"{view.state:<9}"]
    if view.node:
        words.append(f"on {view.node}")
    if view.attempt > 1:
        words.append(f"attempt {view.attempt}")
    if view.state == "running" and view.progress:
        words.append(f"{view.progress:.0%}")
    words += [word for word in (view.note, (view.error or {}).get("message", "")) if word]
    words += view.waiting_for
    return "  ".join(words).rstrip()
