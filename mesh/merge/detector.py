"""Meets other meshes of the same name: the loop beside `mesh/merge/policy.py`, a service of the master.

It hears their announcements, asks their servers who they are, and says so; where this mesh is the one that goes, and
may go unasked or was told to, it moves everything (`mesh/merge/mover.py`). An order that a master before this one began
to carry out is carried on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from mesh.bus.errors import KeyExists
from mesh.cluster.controller import read_servers
from mesh.coordination import MergeOrder
from mesh.discovery.announcement import MEMBER, Announcement
from mesh.errors import QueztlError
from mesh.leader import journal
from mesh.membership.member import ALIVE, UP, Member
from mesh.merge import mover, policy
from mesh.merge.order import give_order, read_order, update_order
from mesh.merge.policy import MeshSummary

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.leader.election import Election

log = logging.getLogger(__name__)

LOOK_EVERY_S = 3.0
#: A mesh is seen this long before anything is done about it: nodes that are just moving announce both.
SEEN_FOR_S = 4.0
TOLD_EVERY_S = 0.5

_NONE: frozenset[str] = frozenset()

Connect = Callable[[tuple[str, ...]], Awaitable["Bus"]]
Peers = Callable[[], Iterable[Announcement]]
Members = Callable[[], Iterable[Member]]

COPIED = (
    "Two nodes call themselves {}: the data directory of one was copied. Stop one, and start it with an empty --data."
)


class DuplicateMeshDetector:
    """`run(fence)` for one term as master."""

    def __init__(self, bus: Bus, me: str, election: Election, peers: Peers, connect: Connect, members: Members) -> None:
        """`peers`: what is announced now; `connect`: to another mesh's bus, by its URLs; `members`: of this mesh."""
        self._bus, self._me, self._election, self._peers, self._connect = bus, me, election, peers, connect
        self._members = members
        self._since: dict[str, float] = {}
        self._who: MeshSummary | None = None
        """Who this mesh is."""
        self.alarms: dict[str, str] = {}
        """What people should know: id of the other mesh -> a sentence."""

    async def run(self, fence: int) -> None:
        """Look, and act where it may, until cancelled."""
        try:
            while True:
                order = await read_order(self._bus)
                if order is not None and order.phase != "moved":
                    await self._move(order, fence)
                elif order is None:
                    await self._look(fence)
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            self.alarms = {}

    async def _look(self, fence: int) -> None:
        peers = list(self._peers())
        who = self._who = self._who or await mover.read_identity(self._bus)
        ours = frozenset(url for one in await read_servers(self._bus) for url in one.client_urls) if peers else _NONE
        others = strangers(peers, who) | twins(peers, who.id, ours)
        copied = doubles(peers, who.id, ours, self._members())
        # Eight questions, for a judgement: not every few seconds of a mesh that is alone, as most are.
        mine = await mover.read_mesh_summary(self._bus) if others else who
        now = time.monotonic()
        self._since = {key: self._since.get(key, now) for key in others}
        said = {f"copy-{node}": COPIED.format(node) for node in copied}
        for key, urls in others.items():
            if now - self._since[key] < SEEN_FOR_S:
                continue
            other = await self._ask(urls)
            if other is None:
                continue
            verdict = policy.judge(mine, other)
            if verdict.do == "merge" and not copied and verdict.loser == mine.id and policy.loser(mine, other) is mine:
                await self._order(mine, other, urls, verdict.reason, fence)
                return
            if sentence := policy.words(mine, other, verdict):
                said[other.id] = sentence
        for name, sentence in said.items():
            if name not in self.alarms:
                log.warning("%s", sentence)
                await journal.emit(self._bus, journal.OTHER_MESH, {"id": name, "says": sentence}, fence=fence)
        self.alarms = said

    async def _ask(self, urls: tuple[str, ...]) -> MeshSummary | None:
        """Who that is, as its own servers tell; None when nobody answers."""
        try:
            bus = await self._connect(urls)
        except QueztlError:
            return None
        try:
            return await mover.read_mesh_summary(bus)
        except QueztlError as error:
            log.debug("the mesh at %s could not be asked: %s", urls, error.message)
            return None
        finally:
            await bus.close()

    async def _order(
        self, mine: MeshSummary, other: MeshSummary, urls: tuple[str, ...], reason: str, fence: int
    ) -> None:
        if await self._election.confirm() != fence:
            return
        order = MergeOrder(into=other.id, urls=urls, by=self._me, at=time.time(), mover=self._me)
        log.warning("this mesh (%s) goes into %s: %s", mine.id, other.id, reason)
        await journal.emit(self._bus, journal.MERGE_BEGUN, {"into": other.id, "reason": reason}, fence=fence)
        try:
            await give_order(self._bus, order)
        except KeyExists:
            return  # somebody else said so in the same moment; carried out at the next look

    async def _move(self, order: MergeOrder, fence: int) -> None:
        """Carry an order out, or on. Raises: QueztlError (then it is tried again)."""
        if await self._election.confirm() != fence:
            return
        if order.mover != self._me:
            order = await update_order(self._bus, mover=self._me)
        winner = await self._connect(order.urls)
        told_at = 0.0

        async def confirmed() -> bool:
            return await self._election.confirm() == fence

        async def told(moved: dict[str, int]) -> None:
            nonlocal told_at
            if time.monotonic() - told_at >= TOLD_EVERY_S:
                told_at = time.monotonic()
                await update_order(self._bus, moved=dict(moved))

        try:
            await mover.Mover(self._bus, winner, confirmed, told, lambda: holds_work(self._members())).run()
            log.warning("everything of this mesh is in %s now", order.into)
        finally:
            await winner.close()


def strangers(peers: Iterable[Announcement], mine: MeshSummary) -> dict[str, tuple[str, ...]]:
    """Other meshes of this name, by id: where their buses are. Pure."""
    found: dict[str, dict[str, None]] = {}
    for one in peers:
        if one.role == MEMBER and one.mesh_name == mine.name and one.mesh_id != mine.id and one.urls:
            found.setdefault(one.mesh_id, {}).update(dict.fromkeys(one.urls))
    return {key: tuple(urls) for key, urls in found.items()}


def twins(peers: Iterable[Announcement], mesh: str, ours: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Members of this very mesh whose bus is none of `ours`: it may be led in two places. By "mesh'". Pure."""
    urls = (url for one in peers if _is_elsewhere(one, mesh, ours) for url in one.urls)
    found = tuple(dict.fromkeys(urls))
    return {f"{mesh}'": found} if found else {}


def doubles(
    peers: Iterable[Announcement], mesh: str, ours: frozenset[str], members: Iterable[Member]
) -> frozenset[str]:
    """Nodes that are up here, and say that they are on another bus too: copies. Pure."""
    up = {one.record.id for one in members if one.state == UP}
    return frozenset(one.node_id for one in peers if one.node_id in up and _is_elsewhere(one, mesh, ours))


def _is_elsewhere(one: Announcement, mesh: str, ours: frozenset[str]) -> bool:
    return one.role == MEMBER and one.mesh_id == mesh and bool(one.urls) and not ours.intersection(one.urls)


def holds_work(members: Iterable[Member]) -> bool:
    """Whether any node that lives has taken work it has not ended, by its last heartbeat. Pure."""
    heartbeats = (one.heartbeat for one in members if one.state in ALIVE)
    return any(heartbeat is not None and heartbeat.running + heartbeat.queued > 0 for heartbeat in heartbeats)
