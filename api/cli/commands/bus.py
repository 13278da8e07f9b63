"""The bus of the mesh: where it listens, and how safe queued work is on it."""

from __future__ import annotations

import argparse

from api.cli.output.console import Output
from api.cli.output.exit_codes import NOT_REACHABLE, OK

HELP = "where the bus listens, how safe queued work is"


def add(parser: argparse.ArgumentParser) -> None:
    """See `queztl bus --help`."""
    parser.add_argument(
        "what", nargs="?", choices=("show", "rescue", "merge"), default="show",
        help="rescue: what to do when most bus servers are lost; merge: make two meshes of one name one; --yes does it",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="do what rescue or merge tells")
    parser.add_argument("--into", metavar="URL|ID", help="merge: this mesh goes into that one [the weaker one goes]")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print it, or rescue it."""
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
    out.facts(
        (
            ("mesh", f"{document['mesh']} ({document['mesh_id']})"),
            ("master", document["leader"] or "none right now"),
            ("urls", " ".join(bus["urls"])),
            ("queue", f"{document.get('queue', {}).get('tasks', 0)} tasks"),
            ("safety", bus["safety"] or "only a node's API tells: use --url http://HOST:PORT"),
            *(("alarm", alarm) for alarm in document.get("alarms", ())),
        )
    )
    return OK


async def _rescue(args: argparse.Namespace, out: Output) -> int:
    """Say what is lost and what may be done; with --yes do it. Needs a node's API to know where the servers are."""
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
