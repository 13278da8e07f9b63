"""Dead letters: tasks that used up their attempts or kill their workers, kept to be read and replayed."""

from __future__ import annotations

import argparse
import base64
from time import time
from typing import TYPE_CHECKING, Any

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import moment

if TYPE_CHECKING:
    from mesh.client import Mesh
    from mesh.messages import DeadLetter

HELP = "tasks that used up their attempts: list, show, replay"


def add(parser: argparse.ArgumentParser) -> None:
    """`dead list | show ID | replay ID…`"""
    actions = parser.add_subparsers(dest="action", metavar="list|show|replay", required=True)
    listing = actions.add_parser("list", help="those there are, oldest first")
    listing.add_argument("--kind", default="", help="of this kind only")
    showing = actions.add_parser("show", help="one, with its payload")
    showing.add_argument("id", metavar="ID")
    replaying = actions.add_parser("replay", help="submit again, as new tasks; the dead letters go")
    replaying.add_argument("ids", metavar="ID", nargs="*")
    replaying.add_argument("--all", action="store_true", help="all there are")
    replaying.add_argument("--kind", default="", help="with --all: of this kind only")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Do it. Raises: NotFound, BadInput, BusUnavailable."""
    from mesh.client import Mesh
    from mesh.errors import BadInput

    if args.action == "replay" and bool(args.ids) == args.all:
        raise BadInput("name the dead letters to replay, or use --all")
    async with Mesh(args.url) as mesh:
        action = {"list": _list, "show": _show, "replay": _replay}[args.action]
        return await action(mesh, args, out)


async def _list(mesh: Mesh, args: argparse.Namespace, out: Output) -> int:
    letters = await mesh.dead_list(args.kind)
    if out.as_json:
        out.document({"dead": [document(letter, with_payload=False) for letter in letters]})
        return OK
    now = time()
    rows = [
        (letter.task.id, letter.task.kind, letter.end.attempt, moment(letter.died_at, now), reason(letter))
        for letter in letters
    ]
    out.table(("id", "kind", "attempts", "died", "reason"), rows, empty="there are no dead letters")
    return OK


async def _show(mesh: Mesh, args: argparse.Namespace, out: Output) -> int:
    letter = await mesh.dead_show(args.id)
    shown = document(letter, with_payload=True)
    if out.as_json:
        out.document(shown)
        return OK
    out.facts((name, value) for name, value in shown.items() if name not in ("payload", "died_at", "faults"))
    out.facts([("died", moment(letter.died_at, time())), *((f["field"], f["problem"]) for f in shown["faults"])])
    out.line("payload:")
    out.value(shown["payload"])
    return OK


async def _replay(mesh: Mesh, args: argparse.Namespace, out: Output) -> int:
    ids = args.ids or [letter.task.id for letter in await mesh.dead_list(args.kind)]
    replayed = []
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
    """Why it died."""
    return letter.end.error.message if letter.end.error else letter.end.state


def document(letter: DeadLetter, with_payload: bool) -> dict[str, Any]:
    """A dead letter for programs; a payload that was a blob is its reference."""
    from mesh.messages import decode_any

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
        shown["payload"] = readable(decode_any(task.payload)) if len(task.payload) else {"in": task.payload_ref}
    return shown


def readable(value: Any) -> Any:
    """Plain data with bytes as {"base64": …}: what a payload takes back."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(name): readable(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [readable(one) for one in value]
    return value
