"""`queztl bus merge`: what it takes to make two meshes of one name one; with --yes the order, and its progress."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING

from api.cli.output.console import Output
from api.cli.output.exit_codes import NOT_FOUND, OK

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.merge.policy import MeshSummary

LISTEN_S = 3.0
LOOK_EVERY_S = 0.5
#: The bus of the mesh that goes may be silent for so long, as while it elects a leader, before it counts as lost.
LOST_S = 30.0


async def merge(args: argparse.Namespace, out: Output) -> int:
    """Show both sides and who would go; with --yes have it done. Raises: BadInput, BusUnavailable, NotFound."""
    from api.cli.input.network import network_document
    from mesh.bus.client import Bus
    from mesh.merge import mover, policy

    document = await network_document(args.url)
    urls = await _other_urls(args.into, document["mesh"], document["mesh_id"], out)
    if not urls:
        out.note(f"no other mesh called {document['mesh']} is heard here; name one with --into URL")
        return NOT_FOUND
    here = await Bus.connect(tuple(document["bus"]["urls"]), name="queztl merge")
    there = await Bus.connect(urls, name="queztl merge")
    try:
        mine, other = await mover.read_mesh_summary(here), await mover.read_mesh_summary(there)
        goes = mine if args.into else policy.loser(mine, other)
        stays, loser, winner = (other, here, there) if goes is mine else (mine, there, here)
        if (problem := _refusal(mine, other)) is not None:
            out.note(problem)
            return NOT_FOUND
        for sentence in policy.explain(goes, stays):
            out.line(sentence)
        if not args.yes:
            out.line("Nothing was done: add --yes to do it.")
            return OK
        await _order(loser, winner, stays)
        await _follow(loser, out)
        out.line(f"done: {goes.id} is part of {stays.id} now")
        return OK
    finally:
        await here.close()
        await there.close()


def _refusal(mine: MeshSummary, other: MeshSummary) -> str | None:
    if mine.id == other.id and mine.lease == other.lease:
        return "that is this very mesh: there is nothing to merge"
    if mine.name != other.name:
        return f"that mesh is called {other.name}, not {mine.name}: only meshes of one name can be merged"
    if mine.key != other.key:
        return "they have different keys: give both the same key first"
    return None


async def _other_urls(into: str | None, mesh: str, mesh_id: str, out: Output) -> tuple[str, ...]:
    """Where the other mesh's bus is: as named, else as announced on this network."""
    from api.cli.input.network import network_document

    if into and into.startswith(("nats://", "tls://")):
        return (into,)
    if into and into.startswith(("http://", "https://")):
        return tuple((await network_document(into))["bus"]["urls"])
    out.note("listening for other meshes, a few seconds…")
    return await _heard(into, mesh, mesh_id)


async def _heard(into: str | None, mesh: str, mesh_id: str) -> tuple[str, ...]:
    import os

    from mesh.discovery.interfaces import usable_addresses
    from mesh.discovery.mdns import Discovery
    from mesh.merge.detector import strangers
    from mesh.merge.policy import MeshSummary

    discovery = Discovery(usable_addresses(os.environ.get("QUEZTL_INTERFACE", "")).addresses)
    await discovery.start()
    try:
        deadline = time.monotonic() + LISTEN_S
        while (left := deadline - time.monotonic()) > 0:
            found = strangers(discovery.peers(), MeshSummary(mesh_id, mesh))
            if into in found:
                return found[into]
            if found and into is None:
                return next(iter(found.values()))
            await discovery.changed(left)
        return ()
    finally:
        await discovery.stop()


async def _order(loser: Bus, winner: Bus, stays: MeshSummary) -> None:
    """Tell the mesh that goes. Its master carries it out; one that it has already is followed.

    Raises: BadInput when the other one goes somewhere itself.
    """
    from mesh.bus.errors import KeyExists
    from mesh.cluster.controller import read_servers
    from mesh.coordination import MergeOrder
    from mesh.errors import BadInput
    from mesh.merge.order import give_order, read_order

    if await read_order(winner) is not None:
        raise BadInput(f"{stays.id} goes into another mesh itself; wait until it is there, and merge with that one")
    urls = tuple(url for one in await read_servers(winner) for url in one.client_urls)
    try:
        await give_order(loser, MergeOrder(into=stays.id, urls=urls, by="queztl", at=time.time()))
    except KeyExists:
        return


async def _follow(loser: Bus, out: Output) -> None:
    """Until everything is over there. Raises: BusUnavailable when the mesh that goes is lost before.

    The bus that goes ends soon after it said so: what it says is heard, and read only in case that was missed.
    """
    from mesh import subjects
    from mesh.coordination import MergeOrder, decode_merge
    from mesh.errors import BusUnavailable
    from mesh.merge.order import read_order

    said, lost_at, latest = "", float("inf"), list[MergeOrder | None]()

    def hear(key: str, value: bytes) -> None:
        if key == subjects.MERGE_KEY:
            latest[:] = [decode_merge(value) if value else None]

    listening = await loser.kv(subjects.KV_MESH).watch_writes(hear)
    try:
        while True:
            try:
                order = latest.pop() if latest else await read_order(loser)
                lost_at = float("inf")
            except BusUnavailable:
                lost_at = min(lost_at, time.monotonic())
                if not latest and time.monotonic() - lost_at > LOST_S:
                    raise
                await asyncio.sleep(LOOK_EVERY_S)
                continue
            if order is None or order.phase == "moved":
                return
            moved = ", ".join(f"{count} {what}" for what, count in order.moved.items())
            words = f"moved: {moved}" if moved else "its nodes finish what they run"
            if words != said:
                said = words
                out.note(words)
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await listening.close()
