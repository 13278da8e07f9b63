"""The tasks of the mesh: first those that wait or run, then those that have ended, each the oldest first.

queztl tasks --state failed --kind echo
queztl tasks --state running --min-age 3600
"""

from __future__ import annotations

import argparse
from time import time
from typing import TYPE_CHECKING, Any

from api.cli.input.arguments import add_page, seconds
from api.cli.input.pages import collect
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import ago, duration
from api.cli.output.table import Column

if TYPE_CHECKING:
    from mesh.views import TaskSummary

HELP = "the tasks of the mesh: which wait, run and have ended"
#: So many are shown unless --limit says otherwise.
SHOWN = 100
STATES = ("queued", "running", "done", "failed", "cancelled", "expired")
COLUMNS = (
    Column("id"), Column("kind", wraps=True), Column("state", is_state=True), Column("node", drop=3, hide_empty=True),
    Column("submitted", drop=2), Column("took", drop=1, right=True, hide_empty=True),
    Column("about", wraps=True, hide_empty=True),
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    """The filters, and where to go on."""
    parser.add_argument("--state", choices=STATES, default="", help="only those in this state")
    parser.add_argument("--kind", default="", help="only those of this kind")
    parser.add_argument("--node", default="", metavar="ID|NAME", help="only those that this node runs or ran")
    parser.add_argument(
        "--min-age",
        type=seconds,
        default=0.0,
        metavar="S",
        help="only those accepted, or ended if they have, at least S seconds ago",
    )
    add_page(parser, SHOWN)


async def run(args: argparse.Namespace, out: Output) -> int:
    """List them. Raises: BadInput, BusUnavailable."""
    from mesh.client import Mesh
    from mesh.tasks.listing import MAX_LIMIT
    from mesh.views import TaskFilter

    chosen = TaskFilter(args.state, args.kind.lower(), args.node, args.min_age)
    async with Mesh(args.url) as mesh:

        async def read(count: int, after: str) -> tuple[tuple[TaskSummary, ...], str]:
            page = await mesh.task_page(chosen, count, after)
            return page.tasks, page.next

        found, cursor = await collect(read, MAX_LIMIT, None if args.all else args.limit, args.after)
    if out.as_json:
        out.document({"tasks": found, "next": cursor or None})
        return OK
    now = time()
    out.table(COLUMNS, [row(task, now) for task in found], empty="there are no such tasks")
    if cursor:
        out.note(f"there are more: --after {cursor}, or --all")
    return OK


def row(task: TaskSummary, now: float) -> tuple[Any, ...]:
    """A task in the table. Pure."""
    took_s = (task.ended_at or now) - task.started_at if task.started_at else -1.0
    about = (task.error or {}).get("message") or task.note
    if task.state == "running" and task.progress:
        about = f"{task.progress:.0%} {about}".rstrip()
    return (
        task.id, task.kind, task.state, task.node, ago(task.submitted_at, now), duration(took_s) if took_s >= 0 else "",
        "" if about == task.state else about,
    )  # fmt: skip
