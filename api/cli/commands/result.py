"""The result of a task; waits until it has ended. Bytes go to a file (-o) or into a pipe."""

from __future__ import annotations

import argparse
from pathlib import Path

from api.cli.input.arguments import add_files, add_force, seconds
from api.cli.output.console import Output
from api.cli.output.results import show_end, wait_for_end

HELP = "the result of a task (waits for it)"


def add(parser: argparse.ArgumentParser) -> None:
    """`result ID [-o FILE] [--files DIR]`"""
    parser.add_argument("id", metavar="ID")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the result to FILE")
    add_files(parser)
    add_force(parser)
    parser.add_argument("--within", type=seconds, metavar="S", help="wait at most S seconds (0: not at all)")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print or write it. Raises: NotFound, TaskFailed, WaitTimeout, BusUnavailable."""
    from mesh.client import Mesh
    from mesh.errors import WaitTimeout
    from mesh.files import check_output
    from mesh.task_states import FINAL

    if args.output is not None:
        check_output(args.output, args.force)
    async with Mesh(args.url) as mesh:
        view = await mesh.status(args.id)  # also turns the sequence of an ingress message into a task id
        if view.state not in FINAL and args.within == 0:
            raise WaitTimeout(f"task {view.id} is {view.state}; it goes on")
        end = await wait_for_end(out, mesh, view.id, args.within)
        return await show_end(out, mesh, end, args.output, args.force, args.files)
