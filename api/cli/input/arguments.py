"""Arguments of the command line as values: JSON, seconds, counts, the options of a task."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any


def json_value(text: str, what: str = "the payload") -> Any:
    """Parse JSON from the command line; `-` reads stdin, `@FILE` a file. Raises: BadInput, OSError."""
    from mesh.errors import BadInput, Fault

    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        text = Path(text[1:]).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        problem = f"is not JSON ({error}); quote it for the shell: '{{\"value\": 1}}'"
        raise BadInput(f"{what} is not JSON", (Fault(what.rpartition(" ")[2], problem),)) from None


def json_object(text: str, what: str) -> dict[str, Any]:
    """Parse a JSON object. Raises: BadInput, OSError."""
    from mesh.errors import BadInput, Fault

    value = json_value(text, what)
    if not isinstance(value, dict):
        fault = Fault(what.rpartition(" ")[2], 'must be a JSON object, {"name": value, …}')
        raise BadInput(f"{what} is not a JSON object", (fault,))
    return value


def seconds(text: str) -> float:
    """An argparse type: seconds, not negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return value


def count(text: str) -> int:
    """An argparse type: a whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def field_and_path(text: str) -> tuple[str, Path]:
    """An argparse type: FIELD=PATH."""
    field, equals, path = text.partition("=")
    if not equals or not field or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=PATH")
    return field, Path(path)


def add_page(parser: argparse.ArgumentParser, shown: int) -> None:
    """Add --limit, --all and --after."""
    most = parser.add_mutually_exclusive_group()
    most.add_argument("--limit", type=count, default=shown, metavar="N", help=f"show at most N [{shown}]")
    most.add_argument("--all", action="store_true", help="show all, however many there are")
    parser.add_argument("--after", default="", metavar="CURSOR", help="go on where an earlier list ended")


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add --force, for commands that write a file."""
    parser.add_argument("--force", action="store_true", help="replace the output file if it exists")


def add_files(parser: argparse.ArgumentParser, when: str = "") -> None:
    """Add --files, for commands that show a result. `when`: a condition, such as "with --wait: "."""
    what = "write the files of the result (trained weights, …) into DIR, which is made if needed"
    parser.add_argument("--files", type=Path, metavar="DIR", help=when + what)


def add_task_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a submitted task (see mesh.views.SubmitRequest)."""
    group = parser.add_argument_group("the task")
    group.add_argument("--urgency", choices=("high", "normal", "low"), default="normal", help="[normal]")
    for name, what in (
        ("--timeout", "limit of its run time [that of the kind]"),
        ("--delay", "start no earlier than S seconds from now"),
        ("--expires", "expire if not started within S seconds"),
    ):
        group.add_argument(name, type=seconds, default=0.0, metavar="S", help=what)
    group.add_argument("--attempts", type=count, default=None, metavar="N", help="attempts at most [3]")
    group.add_argument(
        "--requires",
        metavar="JSON",
        help='what its node must have: {"cores": 4, "memory_mb": 2000, "accelerator": "cuda", "labels": {…}, '
        '"region": "eu", "node": "…"}',
    )
    group.add_argument(
        "--origin", default="", metavar="REGION|LAT,LON", help="where the work comes from: nodes near by run it first"
    )


def task_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a task as keywords of SubmitRequest. Raises: BadInput."""
    return {
        "urgency": args.urgency,
        "timeout_s": args.timeout,
        "max_attempts": args.attempts,
        "delay_s": args.delay,
        "expires_s": args.expires,
        "requires": json_object(args.requires, "the option requires") if args.requires else {},
        "origin": args.origin,
    }
