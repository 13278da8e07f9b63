"""`queztl`: the mesh from the command line. This file parses, runs one command, and turns errors into exit codes.

Starts quickly: nothing but argparse is imported before a command runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from api.cli.commands import (
    bench,
    blobs,
    bus,
    cancel,
    cost,
    dead,
    doctor,
    encode,
    kinds,
    map,
    mine,
    nodes,
    result,
    scale,
    status,
    submit,
    watch,
)
from api.cli.output import exit_codes
from api.cli.output.console import Output

COMMANDS: dict[str, ModuleType] = {
    "nodes": nodes,
    "submit": submit,
    "status": status,
    "result": result,
    "cancel": cancel,
    "watch": watch,
    "map": map,
    "mine": mine,
    "encode": encode,
    "kinds": kinds,
    "dead": dead,
    "blobs": blobs,
    "bus": bus,
    "bench": bench,
    "scale": scale,
    "cost": cost,
    "doctor": doctor,
}


class UsageError(Exception):
    """The command line can't be understood."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is an exception: with --json it must become a document."""

    def error(self, message: str) -> NoReturn:
        """Raises: UsageError."""
        raise UsageError(message, self.format_usage())


def _add_global(parser: argparse.ArgumentParser, top: bool) -> None:
    """The flags that go before or after the command; below the top they leave no default behind."""
    nothing = None if top else argparse.SUPPRESS
    group = parser.add_argument_group("everywhere")
    group.add_argument(
        "--url",
        metavar="URL",
        default=nothing,
        help="nats://HOST:PORT of a bus server or http://HOST:PORT of any node [QUEZTL_URL, else the node here]",
    )
    off = False if top else argparse.SUPPRESS
    group.add_argument("--json", action="store_true", default=off, help="print JSON, for programs")
    group.add_argument("--quiet", "-q", action="store_true", default=off, help="print what was asked for, no more")
    group.add_argument("--debug", action="store_true", default=off, help="log what happens, show where errors are from")


def _below(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of a command's own commands (`dead list`)."""
    several = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [one for action in several for one in action.choices.values()]


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    codes = "\n".join(f"  {code:<3}  {meaning}" for code, meaning in exit_codes.MEANINGS.items())
    made = Parser(
        prog="queztl",
        description="Submit work to a Queztl mesh and look at it.",
        epilog=f"exit codes:\n{codes}\n\n`queztl COMMAND --help` says more about a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_global(made, top=True)
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, module in COMMANDS.items():
        one = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add(one)
        for level in (one, *_below(one)):
            _add_global(level, top=False)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see exit_codes)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parser().parse_args(words)
    except UsageError as mistake:
        return _usage(mistake, "--json" in words)
    by_line = getattr(COMMANDS[args.command], "BY_LINE", False)
    out = Output(as_json=args.json, quiet=args.quiet, by_line=by_line)
    try:
        return _run(args, out)
    except BrokenPipeError:
        # The reader went (`queztl nodes | head`): nobody is left to tell, and exit must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13
    except (Exception, KeyboardInterrupt) as error:
        if args.debug:
            import traceback

            traceback.print_exc()
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        out.error(first)
        return exit_codes.of_error(first)


def _usage(mistake: UsageError, as_json: bool) -> int:
    from mesh.errors import BadInput

    print(mistake.usage.rstrip(), file=sys.stderr)
    Output(as_json).error(BadInput(str(mistake)))
    return exit_codes.BAD_INPUT


def _run(args: argparse.Namespace, out: Output) -> int:
    import asyncio
    import logging

    level = logging.DEBUG if args.debug else logging.WARNING
    logging.basicConfig(level=level, format="queztl: %(message)s", stream=sys.stderr)
    return int(asyncio.run(COMMANDS[args.command].run(args, out)))


if __name__ == "__main__":
    raise SystemExit(main())
