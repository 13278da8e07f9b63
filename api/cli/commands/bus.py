"""The bus of the mesh: where it listens, and how safe queued work is."""

from __future__ import annotations

import argparse

from api.cli.output.console import Output
from api.cli.output.exit_codes import NOT_REACHABLE, OK
from api.cli.output.formatting import counted

HELP = "where the bus listens, how safe queued work is"


def add(parser: argparse.ArgumentParser) -> None:
    """See `queztl bus --help`."""
    parser.add_argument(
        "what", nargs="?", choices=("show", "rescue", "merge"), default="show",
        help="rescue: restore a bus that lost most of its servers; merge: make one mesh of two that have the same "
        "name. Both say what they would do, and do it only with --yes",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="carry out the rescue or the merge")
    parser.add_argument("--into", metavar="URL|ID", help="merge: the mesh that stays [the stronger of the two]")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Show, rescue or merge. Raises: BadInput, BusUnavailable, NotFound."""
    from api.cli.input.network import network_document

    if args.what == "rescue":
        return await _rescue(args, out)
    if args.what == "merge":
        from api.cli.commands.bus_merge import merge

        return await merge(args, out)
    document = await network_document(args.url)
    if out.as_json:
        names = ("mesh", "mesh_id", "leader", "bus", "queue", "alarms")
        out.document({name: document[name] for name in names if name in document})
        return OK
    bus = document["bus"]
    queued = document.get("queue", {}).get("tasks")
    out.facts(
        (
            ("mesh", f"{document['mesh']} ({document['mesh_id']})"),
            ("leader", document["leader"] or "none right now"),
            ("urls", " ".join(bus["urls"])),
            ("queue", "not known: the bus did not answer" if queued is None else f"{counted(queued, 'task')} waiting"),
            ("safety", bus["safety"] or "known to nodes only: use --url http://HOST:PORT"),
            *(("alarm", alarm) for alarm in document.get("alarms", ())),
        )
    )
    return OK


async def _rescue(args: argparse.Namespace, out: Output) -> int:
    """Print what is lost and what can be done; with --yes do it. The node's API says where the bus servers are."""
    from api.cli.input.network import network_document
    from mesh.bus.client import Bus
    from mesh.bus.server.config import SYSTEM_USER
    from mesh.cluster import quorum_recovery
    from mesh.membership.connections import system_password

    document = await network_document(args.url)
    urls, password = tuple(document["bus"]["urls"]), system_password(document["mesh_id"])
    system = await Bus.connect(urls, name="queztl bus", user=SYSTEM_USER, password=password)
    bus = await Bus.connect(urls, name="queztl bus")
    try:
        found = await quorum_recovery.look(system)
        for sentence in quorum_recovery.explain(found):
            out.line(sentence)
        if not found.needs_rescue:
            return OK
        if not args.yes:
            return NOT_REACHABLE
        await quorum_recovery.rescue(system, bus, out.line)
        return OK
    finally:
        await bus.close()
        await system.close()
