"""Dead letters: tasks that used up their attempts or crashed their workers, kept to be read and replayed."""

from __future__ import annotations

import argparse
import base64
from time import time
from typing import TYPE_CHECKING, Any

from api.cli.input.arguments import add_page
from api.cli.input.pages import collect
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import ago, moment, plain
from api.cli.output.table import Column

if TYPE_CHECKING:
    from mesh.client import Mesh
    from mesh.messages import DeadLetter

#: So many are listed unless --limit says otherwise.
SHOWN = 100
HELP = "tasks that used up their attempts: list, show, replay"
COLUMNS = (
    Column("id"), Column("kind", wraps=True), Column("attempts", drop=2, right=True), Column("died", drop=1),
    Column("reason", wraps=True),
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    """`dead list | show ID | replay ID…`"""
    actions = parser.add_subparsers(dest="action", metavar="list|show|replay", required=True)
    listing = actions.add_parser("list", help="all dead letters, oldest first")
    listing.add_argument("--kind", default="", help="only those of this kind")
    add_page(listing, SHOWN)
    showing = actions.add_parser("show", help="one dead letter with its payload")
    showing.add_argument("id", metavar="ID")
    replaying = actions.add_parser("replay", help="submit again as new tasks, and remove the dead letters")
    replaying.add_argument("ids", metavar="ID", nargs="*")
    replaying.add_argument("--all", action="store_true", help="replay all dead letters")
    replaying.add_argument("--kind", default="", help="with --all: only those of this kind")


async def run(args: argparse.Namespace, out: Output) -> int:
    """List, show or replay. Raises: NotFound, BadInput, BusUnavailable."""
    from mesh.client import Mesh
    from mesh.errors import BadInput

    if args.action == "replay" and bool(args.ids) == args.all:
        raise BadInput("name the dead letters to replay, or use --all")
    async with Mesh(args.url) as mesh:
        action = {"list": _list, "show": _show, "replay": _replay}[args.action]
        return await action(mesh, args, out)


async def _list(mesh: Mesh, args: argparse.Namespace, out: Output) -> int:
    from mesh.tasks.dead_letters import MAX_LIMIT

    async def read(count: int, after: str) -> tuple[tuple[DeadLetter, ...], str]:
        page = await mesh.dead_page(args.kind, count, after)
        return page.letters, page.next

    letters, cursor = await collect(read, MAX_LIMIT, None if args.all else args.limit, args.after)
    if out.as_json:
        dead = [document(letter, with_payload=False) for letter in letters]
        out.document({"dead": dead, "next": cursor or None})
        return OK
    now = time()
    rows = [
        (letter.task.id, letter.task.kind, letter.end.attempt, ago(letter.died_at, now), reason(letter))
        for letter in letters
    ]
    out.table(COLUMNS, rows, empty="there are no dead letters")
    if cursor:
        out.note(f"there are more: --after {cursor}, or --all")
    return OK


async def _show(mesh: Mesh, args: argparse.Namespace, out: Output) -> int:
    letter = await mesh.dead_show(args.id)
    shown = document(letter, with_payload=True)
    if out.as_json:
        out.document(shown)
        return OK
    now = time()
    out.facts(
        (
            ("id", shown["id"]),
            ("kind", shown["kind"]),
            ("state", shown["state"]),
            ("reason", shown["reason"]),
            *(("fault", f"{fault['field']}: {fault['problem']}") for fault in shown["faults"]),
            ("attempts", shown["attempts"]),
            ("node", shown["node"]),
            ("submitted", moment(shown["submitted_at"], now)),
            ("died", moment(shown["died_at"], now)),
            ("requires", plain(shown["requires"]) if shown["requires"] else ""),
        )
    )
    out.line("payload:")
    out.value(shown["payload"])
    return OK


async def _replay(mesh: Mesh, args: argparse.Namespace, out: Output) -> int:
    ids = args.ids or [letter.task.id for letter in await mesh.dead_list(args.kind) if not letter.raw]
    replayed: list[dict[str, str]] = []
    for task in ids:
        accepted = await mesh.dead_replay(task)
        replayed.append({"dead": task, "id": accepted.id})
        out.line(f"{task} -> {accepted.id}")
    if out.as_json:
        out.document({"replayed": replayed})
    elif not replayed:
        out.line("there are no dead letters")
    return OK


def reason(letter: DeadLetter) -> str:
    """Why the task died."""
    return letter.end.error.message if letter.end.error else letter.end.state


def document(letter: DeadLetter, with_payload: bool) -> dict[str, Any]:
    """A dead letter for programs; a payload that is a blob is shown as its reference."""
    from mesh import decoding
    from mesh.decoding import Unreadable

    task, end = letter.task, letter.end
    faults = end.error.faults if end.error else ()
    shown: dict[str, Any] = {
        "id": task.id,
        "kind": task.kind,
        "state": end.state,
        "code": end.error.code if end.error else "",
        "reason": reason(letter),
        "faults": [{"field": field, "problem": problem} for field, problem in faults],
        "attempts": end.attempt,
        "node": end.node,
        "died_at": letter.died_at,
        "submitted_at": task.submitted_at,
        "requires": task.requires,
    }
    if with_payload:
        if letter.raw:  # the message could not be read as a task
            shown["payload"] = readable(letter.raw)
        else:
            payload = decoding.anything(task.payload) if len(task.payload) else {"in": task.payload_ref}
            shown["payload"] = readable(bytes(task.payload) if isinstance(payload, Unreadable) else payload)
    return shown


def readable(value: Any) -> Any:
    """Plain data with bytes as {"base64": …}, which a payload takes back."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(name): readable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(item) for item in value]
    return value
