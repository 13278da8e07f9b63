"""Cancel a task, whether it waits or runs. A task that has ended stays as it is."""

from __future__ import annotations

import argparse

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK

HELP = "cancel a task"


def add(parser: argparse.ArgumentParser) -> None:
    """`cancel ID`"""
    parser.add_argument("id", metavar="ID")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Cancel it and print how it ended. Raises: NotFound, BusUnavailable."""
    from mesh.client import Mesh

    async with Mesh(args.url) as mesh:
        view = await mesh.cancel(args.id)
    if out.as_json:
        out.document(view)
    else:
        had_ended = "" if view.state == "cancelled" else " before it could be cancelled"
        out.line(f"{view.id} {view.state}{had_ended}")
    return OK
