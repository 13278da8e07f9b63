"""Detects other meshes of the same name: the loop beside `mesh/merge/policy.py`, a service of the leader.

It receives their announcements, reads their summaries from their bus servers, and raises an alarm. If this mesh is to
be merged, automatically or by order, it moves everything (`mesh/merge/mover.py`). It also continues an order that an
earlier leader began to carry out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from mesh.bus.errors import KeyExists
from mesh.cluster.controller import read_servers
from mesh.cluster.routes import member_urls
from mesh.coordination import MergeOrder
from mesh.discovery.announcement import MEMBER, Announcement
from mesh.discovery.identity import new_token
from mesh.errors import QueztlError
from mesh.leader import journal
from mesh.membership.member import ALIVE, UP, Member
from mesh.merge import mover, policy
from mesh.merge.confirmation import Confirmation, confirm
from mesh.merge.order import give_order, read_order, update_order, withdraw
from mesh.merge.policy import MeshSummary

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.leader.election import Election

log = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0
#: Another mesh must be visible this long before anything is done: nodes that move between meshes announce both.
VISIBLE_FOR_S = 4.0
#: An order whose target does not answer for this long is withdrawn, seconds: a bus that restarts is back by then.
UNDO_AFTER_S = 60.0
#: The period of progress reports in the order, seconds.
REPORT_EVERY_S = 0.5

Connect = Callable[[tuple[str, ...]], Awaitable["Bus"]]
Peers = Callable[[], Iterable[Announcement]]
Members = Callable[[], Iterable[Member]]

COPIED = (
    "Two nodes have the id {}: a data directory was copied. The mesh with fewer nodes is merged into the other one; "
    "then its node of this id stops. Start that one with an empty --data."
)


class DuplicateMeshDetector:
    """`run(fence)` for one term as leader."""

    def __init__(self, bus: Bus, me: str, election: Election, peers: Peers, connect: Connect, members: Members) -> None:
        """`peers` returns the current announcements, `members` the members of this mesh; `connect` connects to the bus
        at some URLs."""
        self._bus, self._me, self._election, self._peers, self._connect = bus, me, election, peers, connect
        self._members = members
        self._visible_since: dict[str, float] = {}
        self._silent_since: float | None = None
        """Since when the target of this mesh's order does not answer, monotonic."""
        self._identity: MeshSummary | None = None
        """The identity of this mesh."""
        self.alarms: dict[str, str] = {}
        """Id of the other mesh (or of the copied node) -> a sentence for people."""

    async def run(self, fence: int) -> None:
        """Detect and act until cancelled."""
        try:
            while True:
                order = await read_order(self._bus)
                if order is not None:
                    await self._carry_out(order, fence)
                elif order is None:
                    await self._look(fence)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self.alarms = {}

    async def _look(self, fence: int) -> None:
        peers = list(self._peers())
        identity = self._identity = self._identity or await mover.read_identity(self._bus)
        servers = await read_servers(self._bus) if peers else []
        ours = frozenset(url for server in servers for url in server.client_urls)
        others = other_meshes(peers, identity) | twins(peers, identity.id, ours)
        copied = copied_nodes(peers, identity.id, ours, self._members())
        # The summary takes eight requests, so it is read only when there is another mesh.
        mine = await mover.read_mesh_summary(self._bus) if others else identity
        now = time.monotonic()
        self._visible_since = {key: self._visible_since.get(key, now) for key in others}
        alarms = {f"copy-{node}": COPIED.format(node) for node in copied}
        for key, urls in others.items():
            if now - self._visible_since[key] < VISIBLE_FOR_S:
                continue
            other = await self._read_other(urls)
            if other is None:
                continue
            verdict = policy.judge(mine, other)
            merged = verdict.source == mine.id and policy.source(mine, other) is mine
            if verdict.action == "merge" and merged:
                await self._order(mine, other, urls, verdict.reason, fence)
                return
            if sentence := policy.alarm(mine, other, verdict):
                alarms[other.id] = sentence
        for name, sentence in alarms.items():
            if name not in self.alarms:
                log.warning("%s", sentence)
                await journal.emit(self._bus, journal.OTHER_MESH, {"id": name, "says": sentence}, fence=fence)
        self.alarms = alarms

    async def _read_other(self, urls: tuple[str, ...]) -> MeshSummary | None:
        """The summary of the mesh at these URLs; None when it can't be read."""
        try:
            bus = await self._connect(urls)
        except QueztlError:
            return None
        try:
            return await mover.read_mesh_summary(bus)
        except QueztlError as error:
            log.debug("could not read the summary of the mesh at %s: %s", urls, error.message)
            return None
        finally:
            await bus.close()

    async def _order(
        self, mine: MeshSummary, other: MeshSummary, urls: tuple[str, ...], reason: str, fence: int
    ) -> None:
        if await self._election.confirm() != fence:
            return
        order = MergeOrder(into=other.id, urls=urls, by=self._me, at=time.time(), mover=self._me, token=new_token("o"))
        log.warning("this mesh (%s) is merged into %s: %s", mine.id, other.id, reason)
        await journal.emit(self._bus, journal.MERGE_BEGUN, {"into": other.id, "reason": reason}, fence=fence)
        target = await self._connect(urls)
        try:
            await give_order(self._bus, mine.id, target, order)
        except KeyExists:
            return  # another order was given at the same moment; the next pass carries it out
        finally:
            await target.close()

    async def _carry_out(self, order: MergeOrder, fence: int) -> None:
        """Move everything once both meshes confirm the order; withdraw one that is refused, or whose target is gone.

        Raises: QueztlError (then it is tried again).
        """
        mine = self._identity = self._identity or await mover.read_identity(self._bus)
        found = await confirm(self._heard(order), mine.id, mine.name, self._connect)
        now = time.monotonic()
        if found.state != "silent":
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        if not must_withdraw(found, now - (self._silent_since or now)):
            if found.state == "confirmed" and not (order.phase == "moved" and found.moved):
                await self._move(order, fence)
            return
        if await self._election.confirm() != fence:
            return
        await withdraw(self._bus)
        self._silent_since = None
        sentence = f"the order to merge this mesh into {order.into} is withdrawn: {found.why}"
        log.warning("%s", sentence)
        await journal.emit(self._bus, journal.MERGE_UNDONE, {"into": order.into, "why": found.why}, fence=fence)

    def _heard(self, order: MergeOrder) -> MergeOrder:
        """The order with the URLs that the other mesh announces now: it may have moved since."""
        urls = dict.fromkeys((*order.urls, *member_urls(self._peers(), order.into)))
        return msgspec.structs.replace(order, urls=tuple(urls))

    async def _move(self, order: MergeOrder, fence: int) -> None:
        """Carry out an order, or continue it. Raises: QueztlError (then it is tried again)."""
        if await self._election.confirm() != fence:
            return
        if order.mover != self._me or order.phase == "moved":
            # "moved" that the target does not confirm is not true.
            order = await update_order(self._bus, mover=self._me, phase="drain")
        target = await self._connect(self._heard(order).urls)
        reported_at = 0.0

        async def confirmed() -> bool:
            return await self._election.confirm() == fence

        async def report(moved: dict[str, int]) -> None:
            nonlocal reported_at
            if time.monotonic() - reported_at >= REPORT_EVERY_S:
                reported_at = time.monotonic()
                await update_order(self._bus, moved=dict(moved))

        try:
            await mover.Mover(self._bus, target, confirmed, report, lambda: holds_work(self._members())).run()
            log.warning("everything of this mesh was moved to %s", order.into)
        finally:
            await target.close()


def must_withdraw(found: Confirmation, silent_s: float) -> bool:
    """Whether an order is withdrawn: it is refused, or its target has not answered for `silent_s` seconds. Pure."""
    return found.state == "refused" or (found.state == "silent" and silent_s > UNDO_AFTER_S)


def other_meshes(peers: Iterable[Announcement], mine: MeshSummary) -> dict[str, tuple[str, ...]]:
    """Other meshes of this name: id -> the URLs of their bus. Pure."""
    found: dict[str, dict[str, None]] = {}
    for peer in peers:
        if peer.role == MEMBER and peer.mesh_name == mine.name and peer.mesh_id != mine.id and peer.urls:
            found.setdefault(peer.mesh_id, {}).update(dict.fromkeys(peer.urls))
    return {key: tuple(urls) for key, urls in found.items()}


def twins(peers: Iterable[Announcement], mesh: str, ours: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """A second group of bus servers with this mesh's id, none of them in `ours`: "<mesh>'" -> their URLs. Pure."""
    urls = (url for peer in peers if _is_elsewhere(peer, mesh, ours) for url in peer.urls)
    found = tuple(dict.fromkeys(urls))
    return {f"{mesh}'": found} if found else {}


def copied_nodes(
    peers: Iterable[Announcement], mesh: str, ours: frozenset[str], members: Iterable[Member]
) -> frozenset[str]:
    """Ids of nodes that are up here, and are announced on another bus too: copied data directories. Pure."""
    up = {member.record.id for member in members if member.state == UP}
    return frozenset(peer.node_id for peer in peers if peer.node_id in up and _is_elsewhere(peer, mesh, ours))


def _is_elsewhere(peer: Announcement, mesh: str, ours: frozenset[str]) -> bool:
    return peer.role == MEMBER and peer.mesh_id == mesh and bool(peer.urls) and not ours.intersection(peer.urls)


def holds_work(members: Iterable[Member]) -> bool:
    """Whether any living node has tasks that have not ended, by its last heartbeat. Pure."""
    heartbeats = (member.heartbeat for member in members if member.state in ALIVE)
    return any(heartbeat is not None and heartbeat.running + heartbeat.queued > 0 for heartbeat in heartbeats)
