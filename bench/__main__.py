"""`python -m bench CASE`: one figure, or one document of figures, with what they were measured on."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence

from bench.measure import BenchFailed
from bench.suite import commands
from mesh.errors import QueztlError

CASES = {
    "mesh": "tasks through a node and its worker processes, beside the raw limit of the same broker",
    "overhead": "CPU seconds of tasks of a second, beside the same calls without a mesh",
    "sha256": "SHA-256d on one core, beside a loop over hashlib",
    "swarm": "a mesh of hundreds of nodes on this machine: joins, idling, plans, deaths, tasks",
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m bench", description="Measure this machine and the mesh on it.")
    cases = made.add_subparsers(dest="case", required=True, metavar="CASE")
    for name, what in CASES.items():
        case = cases.add_parser(name, help=what, description=f"Measures {what}. See bench/METHODOLOGY.md.")
        case.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
        case.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a result")
        case.add_argument("--pairs", type=int, metavar="N", help="rounds [mesh, swarm 5, quick 2; others 9, quick 3]")
        if name == "overhead":
            case.add_argument("--kinds", metavar="A,B", type=lambda text: text.split(","), help="only these")
        if name == "swarm":
            case.add_argument("--nodes", metavar="N", type=int, default=200, help="beside two real ones [200]")
            case.add_argument(
                "--wrong-every", metavar="N", type=int, default=0, help="spoil every Nth result: the bench must find it"
            )
        case.add_argument("--profile", metavar="DIR", help="write py-spy profiles of the processes under load")
    commands.add(cases)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run a case; 0 when every answer was right, 1 when the bench failed."""
    flags = parser().parse_args(argv)
    if hasattr(flags, "act"):
        return _suite(flags)
    case = importlib.import_module(f"bench.cases.{flags.case}")
    try:
        more = {name: getattr(flags, name) for name in ("kinds", "nodes", "wrong_every") if hasattr(flags, name)}
        document = case.run(quick=flags.quick, pairs=flags.pairs, profile=flags.profile, **more)
    except BenchFailed as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(document, indent=2) if flags.json else case.table(document))
    return 0


def _suite(flags: argparse.Namespace) -> int:
    """A command of the suite; 130 when it was stopped by Ctrl-C."""
    try:
        return int(flags.act(flags))
    except (BenchFailed, QueztlError) as failed:
        print(f"bench: {failed}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
