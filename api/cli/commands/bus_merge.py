"""`queztl bus merge`: which of two meshes of the same name goes into the other; --yes does it, --undo withdraws it."""

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
#: The bus of the losing mesh counts as lost after this silence: an election of its leader takes less.
LOST_S = 30.0


async def merge(args: argparse.Namespace, out: Output) -> int:
    """Print both sides and which one would go; with --yes order the merge and follow it.

    Raises: BadInput, BusUnavailable, NotFound.
    """
    from api.cli.input.network import network_document
    from mesh.bus.client import Bus
    from mesh.merge import mover, policy

    document = await network_document(args.url)
    if args.undo:
        return await _undo(tuple(document["bus"]["urls"]), out)
    urls = await _other_urls(args.into, document["mesh"], document["mesh_id"], out)
    if not urls:
        out.note(f"no other mesh called {document['mesh']} announces itself here; name one with --into URL")
        return NOT_FOUND
    here = await Bus.connect(tuple(document["bus"]["urls"]), name="queztl merge")
    there = await Bus.connect(urls, name="queztl merge")
    try:
        mine, other = await mover.read_mesh_summary(here), await mover.read_mesh_summary(there)
        goes = mine if args.into else policy.source(mine, other)
        stays, loser, winner = (other, here, there) if goes is mine else (mine, there, here)
        if (problem := _refusal(mine, other)) is not None:
            out.note(problem)
            return NOT_FOUND
        for sentence in policy.explain(goes, stays):
            out.line(sentence)
        if not args.yes:
            out.line("Nothing was changed: add --yes to merge them.")
            return OK
        await _order(loser, goes, winner, stays)
        await _follow(loser, out)
        out.line(f"done: {goes.id} is part of {stays.id} now")
        return OK
    finally:
        await here.close()
        await there.close()


async def _undo(urls: tuple[str, ...], out: Output) -> int:
    """Withdraw the order of this mesh. Raises: BusUnavailable."""
    from mesh.bus.client import Bus
    from mesh.merge.order import withdraw

    bus = await Bus.connect(urls, name="queztl merge")
    try:
        order = await withdraw(bus)
    finally:
        await bus.close()
    if order is None:
        out.note("this mesh has no order to merge")
        return NOT_FOUND
    out.line(f"The order to merge into {order.into} is withdrawn; this mesh takes work again.")
    if moved := ", ".join(f"{count} {what}" for what, count in order.moved.items()):
        out.line(f"What was moved stays in {order.into}: {moved}.")
    return OK


def _refusal(mine: MeshSummary, other: MeshSummary) -> str | None:
    if mine.id == other.id and mine.lease == other.lease:
        return "that is this mesh itself: there is nothing to merge"
    if mine.name != other.name:
        return f"that mesh is called {other.name}, not {mine.name}: only meshes of the same name can be merged"
    if mine.key != other.key:
        return "the two meshes have different keys: give both the same key first"
    return None


async def _other_urls(into: str | None, mesh: str, mesh_id: str, out: Output) -> tuple[str, ...]:
    """Where the bus of the other mesh is: as named, else as announced on this network."""
    from mesh.endpoint import bus_urls

    if into and ":" in into:
        return await bus_urls(into)
    out.note("listening for other meshes, a few seconds…")
    return await _announced(into, mesh, mesh_id)


async def _announced(into: str | None, mesh: str, mesh_id: str) -> tuple[str, ...]:
    import os

    from mesh.discovery.interfaces import usable_addresses
    from mesh.discovery.mdns import Discovery
    from mesh.merge.detector import other_meshes
    from mesh.merge.policy import MeshSummary

    discovery = Discovery(usable_addresses(os.environ.get("QUEZTL_INTERFACE", "")).addresses)
    await discovery.start()
    try:
        deadline = time.monotonic() + LISTEN_S
        while (left := deadline - time.monotonic()) > 0:
            found = other_meshes(discovery.peers(), MeshSummary(mesh_id, mesh))
            if into in found:
                return found[into]
            if found and into is None:
                return next(iter(found.values()))
            await discovery.changed(left)
        return ()
    finally:
        await discovery.stop()


async def _order(loser: Bus, goes: MeshSummary, winner: Bus, stays: MeshSummary) -> None:
    """Order the merge: the losing mesh's leader carries it out. An order that it already has stands.

    Raises: BadInput when the winning mesh has a merge order itself.
    """
    from mesh.bus.errors import KeyExists
    from mesh.cluster.controller import read_servers
    from mesh.coordination import MergeOrder
    from mesh.discovery.identity import new_token
    from mesh.errors import BadInput
    from mesh.merge.order import give_order, read_order

    if await read_order(winner) is not None:
        raise BadInput(f"{stays.id} goes into another mesh itself; wait until that is done, and merge with that mesh")
    urls = tuple(url for server in await read_servers(winner) for url in server.client_urls)
    try:
        order = MergeOrder(into=stays.id, urls=urls, by="queztl", at=time.time(), token=new_token("o"))
        await give_order(loser, goes.id, winner, order)
    except KeyExists:
        return


async def _follow(loser: Bus, out: Output) -> None:
    """Print the progress until everything has moved. Raises: BusUnavailable when the losing mesh is lost before.

    The losing bus ends soon after it reports the end of the move: its changes are watched, and read only in case one
    was missed.
    """
    from mesh import decoding, subjects
    from mesh.coordination import MergeOrder
    from mesh.decoding import Unreadable
    from mesh.errors import BusUnavailable
    from mesh.merge.order import read_order

    printed, lost_at, latest = "", float("inf"), list[MergeOrder | None]()

    def on_change(key: str, value: bytes) -> None:
        if key == subjects.MERGE_KEY:
            order = decoding.merge(value) if value else None
            latest[:] = [None if isinstance(order, Unreadable) else order]

    listening = await loser.kv(subjects.KV_MESH).watch_writes(on_change)
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
            if order is None:
                raise BusUnavailable("the order to merge was withdrawn: see the log of the leader, or the journal")
            if order.phase == "moved":
                return
            moved = ", ".join(f"{count} {what}" for what, count in order.moved.items())
            progress = f"moved: {moved}" if moved else "its nodes finish what they run"
            if progress != printed:
                printed = progress
                out.note(progress)
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        await listening.close()
