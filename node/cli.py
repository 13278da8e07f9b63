"""`python -m node`: the flags, and the way from a mistake to a sentence and an exit code."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from mesh import log as log_setup
from mesh.errors import CannotStart
from node.config import DEFAULT_API, DEFAULT_MESH, NodeConfig, build

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    """The flags in groups; every default is None, so that the environment can speak when a flag does not."""
    made = argparse.ArgumentParser(
        prog="python -m node",
        description="Make this machine part of a compute mesh. With nothing configured it finds the mesh on "
        "the local network, or founds it.",
        epilog="Every flag is also an environment variable: --log-level is QUEZTL_LOG_LEVEL (lists separated "
        "by commas, switches 1 or 0). A flag wins over its variable. Ctrl-C finishes what runs and leaves.",
    )
    where = made.add_argument_group("which mesh")
    where.add_argument("--mesh", metavar="NAME", help=f"find or found the mesh of this name [{DEFAULT_MESH}]")
    where.add_argument(
        "--join",
        metavar="URL",
        action="append",
        help="also join by this address: nats://HOST:PORT, or http://HOST:PORT of any node; may be repeated",
    )
    where.add_argument("--interface", metavar="IFACE", help="use this network interface only; lo: stay on this machine")
    where.add_argument("--bus-port", metavar="N", help="port of the bus, if hosted here [4222, or a free one]")
    where.add_argument("--preset", metavar="NAME", help="how patient to be: local, lan or wan [lan]")

    _add_capacity(made)
    machine = made.add_argument_group("this node")
    machine.add_argument(
        "--data", metavar="DIR", help="where it keeps its data, one node each [the user's data folder]"
    )
    machine.add_argument("--slots", metavar="N", help="tasks at the same time [one per usable core]")
    machine.add_argument(
        "--label", metavar="K=V", action="append", help="a label that work can ask for; may be repeated"
    )
    machine.add_argument(
        "--measure-after", metavar="S", help="measure its speed once when idle for S seconds; 0: never [10]"
    )
    machine.add_argument(
        "--models", metavar="DIR", action="append", help="llm_inference may load models from DIR; may be repeated"
    )
    machine.add_argument("--region", metavar="R", help="where it is; work is kept near its origin")
    machine.add_argument("--at", metavar="LAT,LON", help="where that is on the earth, for work that says coordinates")
    machine.add_argument(
        "--web-target",
        metavar="HOST:PORT",
        action="append",
        help="web_server_load may send requests to this server too; may be repeated",
    )

    _api_options(made)

    logs = made.add_argument_group("logs and tests")
    logs.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error [info]")
    logs.add_argument("--json-logs", action="store_const", const="1", help="log one JSON object a line")
    logs.add_argument(
        "--fault-kinds", action="store_const", const="1", help="let echo fail, crash, leak and hang on order"
    )
    return made


def _api_options(made: argparse.ArgumentParser) -> None:
    api = made.add_argument_group("its API")
    api.add_argument("--api", metavar="HOST:PORT", help=f"where it listens [{DEFAULT_API}]")
    api.add_argument(
        "--open-api",
        action="store_const",
        const="1",
        help="off this machine, answer everything to everybody (else health, status, register)",
    )


def _add_capacity(parser_: argparse.ArgumentParser) -> None:
    group = parser_.add_argument_group("how many nodes")
    group.add_argument(
        "--max-nodes", metavar="N", help="start more nodes as work needs them, up to N in the mesh [none are started]"
    )
    group.add_argument("--min-nodes", metavar="N", help="keep at least N nodes in the mesh [0]")
    group.add_argument("--started-as", metavar="NAME", help="given by the scaler to the nodes that it starts")
    group.add_argument(
        "--leave-alone", metavar="S", help="leave when the mesh was not reached for S seconds; 0: never [0]"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a node until it is told to stop; the exit code: 0 in order, 2 could not start, 1 anything else."""
    flags = vars(parser().parse_args(argv))
    try:
        config = build(flags, os.environ)
    except CannotStart as fault:
        print(fault.message, file=sys.stderr)
        print("python -m node --help lists the settings.", file=sys.stderr)
        return fault.exit_code
    log_setup.set_up(config.log_level, config.json_logs)
    from node.main import run

    return start(run, config)


def start(run: Callable[[NodeConfig], Coroutine[Any, Any, int]], config: NodeConfig) -> int:
    """Run the coroutine `run(config)` to its end; errors become a sentence on stderr and an exit code."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(run(config))
    except CannotStart as fault:
        print(fault.message, file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        return 130  # before the node could install its own handler: nothing had started
    except Exception as error:
        log.debug("the node failed", exc_info=True)
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"The node stopped: {text} (--log-level debug shows where).", file=sys.stderr)
        return 1


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed: p50 is a fifth better with it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
