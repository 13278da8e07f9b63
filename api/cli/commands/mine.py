"""Search a range of nonces on every node at once; the first node that finds a nonce stops the others.

queztl mine '{"block": "genesis", "nonce_start": 2000000000, "nonce_count": 100000000}'
"""

from __future__ import annotations

import argparse
from time import monotonic
from typing import TYPE_CHECKING

from api.cli.input.arguments import add_task_options, json_object, task_options
from api.cli.output.console import Output

if TYPE_CHECKING:
    from mesh.splitting.nonces import SearchResult

HELP = "search a range of nonces on every node"
REPORT_EVERY_S = 2.0


def add(parser: argparse.ArgumentParser) -> None:
    """`mine [JSON]` and the options of its tasks."""
    parser.add_argument(
        "payload", metavar="JSON", nargs="?", default="{}", help="a payload of crypto_mining; -: stdin, @FILE: a file"
    )
    add_task_options(parser)


async def run(args: argparse.Namespace, out: Output) -> int:
    """Search, and print what was found. Raises: BadInput, BusUnavailable, TaskFailed."""
    from api.cli.output.exit_codes import OK
    from mesh.client import Mesh
    from mesh.splitting.mining import mine
    from mesh.splitting.nonces import checked

    payload = json_object(args.payload, "the payload")
    checked(payload)
    began = reported_at = monotonic()

    def report(so_far: SearchResult, _: list[str]) -> None:
        nonlocal reported_at
        now = monotonic()
        if now - reported_at >= REPORT_EVERY_S:
            reported_at = now
            rate = so_far.hashes / (now - began) / 1e6
            out.note(f"{so_far.hashes / so_far.total:.1%} of {so_far.total} nonces, {rate:.1f} MH/s")

    options = task_options(args)
    async with Mesh(args.url) as mesh:
        for warning in await mesh.warnings("crypto_mining", options["requires"]):
            out.note(f"queztl: {warning}")
        out.document(await mine(mesh, payload, on_progress=report, **options))
    return OK
