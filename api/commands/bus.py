"""The bus of the mesh: where it listens, and how safe queued work is on it."""

from __future__ import annotations

import argparse

from api.commands.exit_codes import OK
from api.commands.output import Output

HELP = "where the bus listens, how safe queued work is"


def add(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print it."""
    from api.commands.network import network_document

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
