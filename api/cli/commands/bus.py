"""The bus of the mesh: where it listens, and how safe queued work is."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli.output.console import Output
from api.cli.output.exit_codes import NOT_REACHABLE, OK
from api.cli.output.formatting import counted

if TYPE_CHECKING:
    from mesh.bus.client import Bus

HELP = "where the bus listens, how safe queued work is"


def add(parser: argparse.ArgumentParser) -> None:
    """See `queztl bus --help`."""
    parser.add_argument(
        "what", nargs="?", choices=("show", "rescue", "merge"), default="show",
        help="rescue: restore a bus that lost most of its servers; merge: make one mesh of two that have the same "
        "name. Both say what they would do, and do it only with --yes",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="carry out the rescue or the merge")
    parser.add_argument("--undo", action="store_true", help="merge: withdraw the order of this mesh")
    parser.add_argument("--into", metavar="URL|ID", help="merge: the mesh that stays [the stronger of the two]")
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="show, rescue: the data directory of a node on this machine that waits or is stopped",
    )  # fmt: skip
    parser.add_argument("--interface", default=os.environ.get("QUEZTL_INTERFACE", ""), metavar="IFACE",
                        help="rescue: the network on which to listen for the other bus servers")  # fmt: skip


async def run(args: argparse.Namespace, out: Output) -> int:
    """Show, rescue or merge. Raises: BadInput, BusUnavailable, NotFound."""
    if args.what == "merge":
        from api.cli.commands.bus_merge import merge

        return await merge(args, out)
    from api.cli.input.network import network_document
    from mesh.errors import BusUnavailable

    folder: Path | None = args.data
    if folder is None:
        try:
            document = await network_document(args.url)
        except BusUnavailable:
            # Without an address, the mesh is that of the node on this machine: its data directory is there to be read.
            folder = _default_folder(args.url)
            if folder is None:
                raise
        else:
            return await _rescue(document, args, out) if args.what == "rescue" else _show(document, out)
    return await _rescue_from_folder(folder, args, out) if args.what == "rescue" else _show_folder(folder, out)


def _default_folder(url: str | None) -> Path | None:
    """The data directory of the node on this machine, if it holds a bus server and no other mesh is named."""
    from mesh import data_folder
    from mesh.bus.server.data_dir import MARKER
    from mesh.discovery.identity import default_data_dir

    if url or os.environ.get("QUEZTL_URL"):
        return None
    path = Path(os.environ.get("QUEZTL_DATA") or default_data_dir())
    return path if (path / data_folder.BUS / MARKER).exists() else None


def _show(document: dict[str, Any], out: Output) -> int:
    """The bus as the node reports it."""
    if out.as_json:
        names = ("mesh", "mesh_id", "leader", "bus", "queue", "alarms", "waiting")
        out.document({name: document[name] for name in names if name in document})
        return OK
    if document.get("waiting"):
        return _show_waiting(document, out)
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


def _show_waiting(document: dict[str, Any], out: Output) -> int:
    """Who waits for whom, as a node that has not joined its mesh reports it."""
    waiting = document["waiting"]
    out.facts(
        (
            ("mesh", f"{document['mesh']} ({document['mesh_id']})"),
            ("waits", waiting["reason"]),
            ("bus servers", ", ".join(waiting["members"])),
            ("connected", ", ".join(waiting["reached"]) or "none"),
            ("heard", ", ".join(waiting["heard"])),
            ("needed", waiting["needed"] or ""),
            ("if lost", waiting["if_lost"] and f"only if the missing ones never come back: {waiting['if_lost']}"),
        )
    )
    return NOT_REACHABLE


def _show_folder(path: Path, out: Output) -> int:
    """What a data directory says of its bus server. Raises: NotFound, CannotStart."""
    from mesh.cluster.hosted_bus import describe, read_hosted

    hosted = read_hosted(path)
    if out.as_json:
        out.document({"mesh": hosted.mesh.name, "mesh_id": hosted.mesh.id, "data": str(hosted.path),
                      "used_by": hosted.used_by, "members": sorted(hosted.members)})  # fmt: skip
    for sentence in describe(hosted):
        out.line(sentence)
    return NOT_REACHABLE


async def _rescue(document: dict[str, Any], args: argparse.Namespace, out: Output) -> int:
    """Rescue by the bus servers that the node's API names."""
    from mesh.bus.client import Bus
    from mesh.bus.server.config import SYSTEM_USER
    from mesh.cluster.quorum_recovery import RESCUE
    from mesh.membership.connections import system_password

    urls, password = tuple(document["bus"]["urls"]), system_password(document["mesh_id"])
    system = await Bus.connect(urls, name="queztl bus", user=SYSTEM_USER, password=password)
    try:
        bus = await Bus.connect(urls, name="queztl bus")
        try:
            return await _look_and_rescue(system, bus, RESCUE, args, out)
        finally:
            await bus.close()
    finally:
        await system.close()


async def _rescue_from_folder(folder: Path, args: argparse.Namespace, out: Output) -> int:
    """Rescue by the bus server in a data directory, which is started for it if its node does not run."""
    from mesh.cluster.hosted_bus import connected, read_hosted
    from mesh.discovery.interfaces import usable_addresses

    hosted = read_hosted(folder)
    if not hosted.used_by:
        out.note(f"no node runs on {hosted.path}; its bus server is started for this, and looks for the others…")
    async with connected(hosted, usable_addresses(args.interface).addresses) as (system, bus):
        code = await _look_and_rescue(system, bus, hosted.rescue_command, args, out)
    if code == OK and args.yes and not hosted.used_by:
        out.line(f"Now start the node again: python -m node --data {hosted.path}")
    return code


async def _look_and_rescue(system: Bus, bus: Bus, command: str, args: argparse.Namespace, out: Output) -> int:
    """Print what is lost and what can be done; with --yes do it."""
    from mesh.cluster import quorum_recovery

    found = await quorum_recovery.look(system)
    for sentence in quorum_recovery.explain(found, command):
        out.line(sentence)
    if not found.needs_rescue:
        return OK
    if not args.yes:
        return NOT_REACHABLE
    await quorum_recovery.rescue(system, bus, out.line)
    return OK
