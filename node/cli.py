"""`python -m node`: the flags, and how an error becomes a sentence and an exit code."""

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
    """The flags in groups. Every default is None, so that the environment decides where a flag is absent."""
    made = argparse.ArgumentParser(
        prog="python -m node",
        description="Make this machine a node of a compute mesh. Without any flags the node joins the mesh on the "
        "local network, or creates it.",
        epilog="Every flag is also an environment variable: --log-level is QUEZTL_LOG_LEVEL (separate the values of a "
        "list by commas; a switch is 1 or 0). A flag overrides its variable. Ctrl-C finishes running tasks and "
        "leaves the mesh.",
    )
    made.add_argument("--version", action="store_true", help="print the versions of Queztl and of what it uses")
    mesh = made.add_argument_group("mesh")
    mesh.add_argument("--mesh", metavar="NAME", help=f"name of the mesh to find or create [{DEFAULT_MESH}]")
    mesh.add_argument(
        "--join",
        metavar="URL",
        action="append",
        help="join through this address: nats://HOST:PORT, or http://HOST:PORT of any node; may be repeated",
    )
    mesh.add_argument("--interface", metavar="IFACE", help="use only this network interface; lo: this machine only")
    mesh.add_argument(
        "--bus-port", metavar="N", help="port of the bus server, if this node hosts one [4222, or any free port]"
    )
    mesh.add_argument("--preset", metavar="NAME", help="timeouts for this kind of network: local, lan or wan [lan]")

    _add_capacity(made)
    _add_machine(made)
    _add_api(made)

    logs = made.add_argument_group("logs and tests")
    logs.add_argument("--log-level", metavar="LEVEL", help="debug, info, warning or error [info]")
    logs.add_argument("--json-logs", action="store_const", const="1", help="log one JSON object per line")
    logs.add_argument(
        "--fault-kinds",
        action="store_const",
        const="1",
        help="let echo fail, crash, leak memory and hang on request",
    )
    return made


def _add_machine(made: argparse.ArgumentParser) -> None:
    node = made.add_argument_group("node")
    node.add_argument(
        "--data", metavar="DIR", help="data directory, one per node [a folder in the user's data directory]"
    )
    node.add_argument("--slots", metavar="N", help="tasks at the same time [one per usable core]")
    node.add_argument("--label", metavar="K=V", action="append", help="label that a task can require; may be repeated")
    node.add_argument(
        "--measure-after",
        metavar="S",
        help="measure how fast this machine runs each kind after S idle seconds; 0: never [10]",
    )
    node.add_argument(
        "--measure-below", metavar="PERCENT", help="measure only while the CPU is used less than this [25]; 100: always"
    )
    node.add_argument(
        "--models", metavar="DIR", action="append", help="llm_inference may load models from DIR; may be repeated"
    )
    node.add_argument("--region", metavar="R", help="region of this machine; tasks run near their origin")
    node.add_argument(
        "--at", metavar="LAT,LON", help="coordinates of that region, for tasks whose origin is coordinates"
    )
    node.add_argument(
        "--web-target",
        metavar="HOST:PORT",
        action="append",
        help="web_server_load may send requests to this server too; may be repeated",
    )


def _add_api(made: argparse.ArgumentParser) -> None:
    api = made.add_argument_group("API")
    api.add_argument("--api", metavar="HOST:PORT", help=f"address on which the API listens [{DEFAULT_API}]")
    api.add_argument(
        "--open-api",
        action="store_const",
        const="1",
        help="answer every request of other machines, not only health, status and register",
    )
    api.add_argument(
        "--limit", metavar="NAME=N", action="append", help="change a limit (docs/settings.md); may be repeated"
    )


def _add_capacity(made: argparse.ArgumentParser) -> None:
    capacity = made.add_argument_group("capacity")
    capacity.add_argument(
        "--max-nodes", metavar="N", help="start nodes as tasks need them, up to N in the mesh [start none]"
    )
    capacity.add_argument("--min-nodes", metavar="N", help="keep at least N nodes in the mesh [0]")
    capacity.add_argument("--started-as", metavar="NAME", help="set by the scaler on the nodes that it starts")
    capacity.add_argument(
        "--leave-alone", metavar="S", help="leave when the mesh was unreachable for S seconds; 0: never [0]"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a node until it is told to stop; the exit code: 0 when it stopped normally, 2 could not start, 1 else."""
    flags = vars(parser().parse_args(argv))
    if flags.pop("version"):
        from node.version import version_line

        print(version_line("queztl-node"))
        return 0
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
    """Run the coroutine `run(config)` to its end; an error becomes a sentence on stderr and an exit code."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(run(config))
    except CannotStart as fault:
        print(fault.message, file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        return 130  # before the node installed its signal handlers: nothing had started
    except Exception as error:
        log.debug("the node failed", exc_info=True)
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"The node stopped: {text} (--log-level debug prints the traceback).", file=sys.stderr)
        return 1


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop of uvloop where it is installed: it lowers the median latency by a fifth."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
