"""`python -m bench CASE`: run one benchmark, and print its figures with what they were measured on."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence

from bench.harness import profiling
from bench.harness.measure import BenchFailed
from bench.suite import commands
from mesh.errors import QueztlError

CASES = {
    "mesh": "tasks through a node and its worker processes, beside the raw limit of the same broker",
    "overhead": "CPU seconds of tasks of about a second, beside the same calls without a mesh",
    "singles": "map, encode and submit beside OpenCV and ffmpeg on the same machine",
    "sha256": "SHA-256d on one core, beside a loop over hashlib",
    "swarm": "a mesh of hundreds of nodes on this machine: joining, idling, plans, deaths, tasks",
}


def command_line() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure this machine and the mesh on it.")
    cases = parser.add_subparsers(dest="case", required=True, metavar="CASE")
    for name, what in CASES.items():
        case = cases.add_parser(name, help=what, description=f"Measures {what}. See bench/METHODOLOGY.md.")
        case.add_argument("--json", action="store_true", help="print one JSON document, and nothing else")
        case.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a result")
        case.add_argument("--pairs", type=int, metavar="N", help="rounds [mesh, swarm 5, quick 2; others 9, quick 3]")
        if name == "overhead":
            case.add_argument(
                "--kinds", metavar="A,B", type=lambda text: text.split(","), help="measure only these kinds"
            )
        if name == "singles":
            case.add_argument(
                "--scenes", metavar="A,B", type=lambda text: text.split(","), help="measure only these scenes"
            )
        if name == "swarm":
            case.add_argument(
                "--nodes", metavar="N", type=int, default=200, help="nodes beside the two real ones [200]"
            )
            case.add_argument(
                "--wrong-every",
                metavar="N",
                type=int,
                default=0,
                help="falsify every Nth result, to prove that it is found",
            )
        case.add_argument("--profile", metavar="DIR", help="write py-spy profiles of the processes under load")
    commands.add(cases)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a benchmark; returns 0 when every answer was right, 1 when there is no result."""
    flags = command_line().parse_args(argv)
    if hasattr(flags, "action"):
        return _suite(flags)
    case = importlib.import_module(f"bench.cases.{flags.case}")
    try:
        options = {
            name: getattr(flags, name) for name in ("kinds", "scenes", "nodes", "wrong_every") if hasattr(flags, name)
        }
        if flags.profile:  # a missing tool is said before the minutes of measuring, not after
            profiling.find_py_spy()
        document = case.run(quick=flags.quick, pairs=flags.pairs, profile=flags.profile, **options)
    except BenchFailed as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(document, indent=2) if flags.json else case.table(document))
    return 0


def _suite(flags: argparse.Namespace) -> int:
    """Run a command of the suite; returns 130 when it was stopped by Ctrl-C."""
    try:
        return int(flags.action(flags))
    except (BenchFailed, QueztlError) as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
