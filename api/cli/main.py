"""The entry point of `queztl`: parse the command line, run one command, turn errors into exit codes.

It must start fast: nothing but argparse is imported before a command runs.
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
    sample,
    scale,
    status,
    submit,
    tasks,
    watch,
)
from api.cli.output import exit_codes
from api.cli.output.console import Output
from mesh.version import program_version

COMMANDS: dict[str, ModuleType] = {
    "nodes": nodes,
    "submit": submit,
    "status": status,
    "tasks": tasks,
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
    "sample": sample,
}


class UsageError(Exception):
    """The command line is not valid."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


class Parser(argparse.ArgumentParser):
    """argparse that raises usage errors: with --json they are printed as a document."""

    # `typing.override` needs Python 3.12.
    def error(self, message: str) -> NoReturn:  # pyrefly: ignore[missing-override-decorator]
        """Raises: UsageError."""
        raise UsageError(message, self.format_usage())


class ShowVersion(argparse.Action):
    """Print the version and exit. argparse's own action wants the version in advance, and finding it takes time."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Raises: SystemExit."""
        print(f"queztl {program_version() or 'unknown (not installed)'}")
        parser.exit()


def _add_global(parser: argparse.ArgumentParser, top: bool) -> None:
    """Add the options that may stand before or after the command; below the top they set no defaults."""
    group = parser.add_argument_group("global options")
    group.add_argument(
        "--url",
        metavar="URL",
        default=None if top else argparse.SUPPRESS,
        help="HOST:PORT of any node's API, or nats://HOST:PORT of a bus server [QUEZTL_URL, else the node on this "
        "machine]",
    )
    off = False if top else argparse.SUPPRESS
    group.add_argument("--json", action="store_true", default=off, help="print JSON, for programs")
    group.add_argument("--quiet", "-q", action="store_true", default=off, help="print no notes, only the answer")
    group.add_argument("--debug", action="store_true", default=off, help="log what happens; show tracebacks of errors")


def _actions_of(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """The parsers of a command's actions (`dead list`)."""
    several = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [choice for action in several for choice in action.choices.values()]


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    codes = "\n".join(f"  {code:<3}  {meaning}" for code, meaning in exit_codes.MEANINGS.items())
    top = Parser(
        prog="queztl",
        description="Submit work to a Queztl mesh, and see what the mesh does.",
        epilog=f"exit codes:\n{codes}\n\n`queztl COMMAND --help` explains a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_global(top, top=True)
    top.add_argument("--version", nargs=0, action=ShowVersion, help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add(command)
        for level in (command, *_actions_of(command)):
            _add_global(level, top=False)
    return top


def _accept_any_name() -> None:
    """Let stdout take every text: names of files need not be UTF-8, and a terminal's encoding may lack a letter.

    Into a pipe or a file a name goes with its own bytes.
    """
    import codecs
    import io

    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("queztl-names", _its_own_bytes)
        sys.stdout.reconfigure(errors="replace" if sys.stdout.isatty() else "queztl-names")


def _its_own_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    codes = [ord(letter) for letter in error.object[error.start : error.end]]
    return bytes(code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else ord("?") for code in codes), error.end


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (see exit_codes)."""
    # Looking for pydantic's plugins reads the metadata of every installed package; no kind needs one.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    arguments = list(sys.argv[1:] if argv is None else argv)
    _accept_any_name()
    try:
        args = parser().parse_args(arguments)
    except UsageError as error:
        return _usage(error, "--json" in arguments)
    by_line = getattr(COMMANDS[args.command], "BY_LINE", False)
    out = Output(as_json=args.json, quiet=args.quiet, by_line=by_line)
    try:
        return _run(args, out)
    except BrokenPipeError:
        # The reader has closed the pipe (`queztl nodes | head`): print nothing, and let exit not flush again.
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


def _usage(error: UsageError, as_json: bool) -> int:
    from mesh.errors import BadInput

    print(error.usage.rstrip(), file=sys.stderr)
    Output(as_json).error(BadInput(str(error)))
    return exit_codes.BAD_INPUT


def _run(args: argparse.Namespace, out: Output) -> int:
    import asyncio
    import logging

    from mesh.errors import BusUnavailable

    async def run() -> int:
        try:
            return int(await COMMANDS[args.command].run(args, out))
        except BusUnavailable as error:
            from api.cli.input.network import explained

            raise await explained(args.url, error) from None

    level = logging.DEBUG if args.debug else logging.WARNING
    logging.basicConfig(level=level, format="queztl: %(message)s", stream=sys.stderr)
    return asyncio.run(run())


if __name__ == "__main__":
    raise SystemExit(main())
