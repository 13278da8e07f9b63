"""The bus grows, heals and shrinks: the loop that carries out `mesh/cluster/topology.py`. A service of the master.

Nothing is remembered that matters: what to do next follows from what is seen, so a master that dies between any two
steps is replaced by one that goes on from there. Each order is given only after the lease was read again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from mesh import coordination, messages, subjects
from mesh.bus import admin_api
from mesh.bus.errors import ApiError
from mesh.cluster import raft_meta, topology
from mesh.cluster.replicas import Replicas, read_held
from mesh.cluster.topology import (
    Candidate,
    MoveMeta,
    MoveStreams,
    Promote,
    Remove,
    Rules,
    Scale,
    Server,
    Step,
    Stop,
    Wait,
)
from mesh.config import MeshConfig
from mesh.coordination import HostingRequest, ServerRecord
from mesh.errors import BusUnavailable
from mesh.leader import journal
from mesh.membership.member import ALIVE, DRAINING, GONE, LEFT, UP

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.leader.election import Election
    from mesh.membership.connections import OpenSystem
    from mesh.membership.member import Member
    from mesh.membership.registry import Registry

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
#: While something is under way.
LOOK_SOON_S = 0.25
#: A node that could not host is not asked again for this long.
RETRY_AFTER_S = 120.0


def rules_of(config: MeshConfig) -> Rules:
    """The plan's patience, from the settings of the mesh."""
    return Rules(config.bus_servers, config.bus_candidate_s, config.bus_server_gone_s, config.bus_join_s)


class ClusterController:
    """Keeps the bus on as many machines as it should be on. `run(fence)` until cancelled."""

    def __init__(
        self,
        bus: Bus,
        election: Election,
        registry: Registry,
        config: MeshConfig,
        open_system: OpenSystem,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus, self._election, self._registry = bus, election, registry
        self._rules, self._open_system, self._clock = rules_of(config), open_system, clock
        self._up_since: dict[tuple[str, str], float] = {}
        self._gone_since: dict[str, float] = {}
        self._told_since: dict[str, float] = {}
        self._failed_at: dict[str, float] = {}
        self._copies = Replicas(clock)
        self._reason: str | None = None
        self._told: str | None = None

    async def run(self, fence: int) -> None:
        """Look, take one step, look again."""
        system = await self._open_system()
        # What was seen in an earlier term of office says nothing about now.
        self._reason, self._told, self._copies = None, None, Replicas(self._clock)
        try:
            while True:
                step = topology.plan(await self._look(system), self._rules)
                if isinstance(step, Wait):
                    await self._say(step.reason, fence)
                elif await self._election.confirm() == fence:
                    await self._take(system, step, fence)
                await asyncio.sleep(LOOK_EVERY_S if step == Wait() else LOOK_SOON_S)
        finally:
            await system.close()

    async def _say(self, reason: str, fence: int) -> None:
        """Keep why nothing more can be done although something should be ("": all is well) where all nodes read it.

        What holds for one look alone is not told: a busy server that answered late, a copy that was a moment behind.
        """
        before, self._reason = self._reason, reason
        if reason != before or reason == self._told or self._election.fence != fence:
            return
        if reason:
            log.info("bus servers: %s", reason)
        await self._bus.kv(subjects.KV_MESH).put(subjects.BUS_KEY, messages.encode({"waits": reason}))
        self._told = reason

    # --- sense --------------------------------------------------------------------------------------
    async def _look(self, system: Bus) -> topology.View:
        records = await read_servers(self._bus)
        names = [one.name for one in records]
        # A lone server has all there is.
        answers = await raft_meta.ask_all(system, streams=len(names) > 1, known=names)
        groups = raft_meta.read_groups(answers, names)
        group, members, now = raft_meta.leaders_view(groups), self._registry.members(), self._clock()
        self._remember(members, records, now)
        if group is None:
            return topology.View(leader="")
        servers = self._servers(records, group, {one.record.id: one for one in members}, now)
        candidates = self._candidates(members, {one.node for one in records}, now)
        lone = len(group.members) == 1 and len(servers) == 1 and not servers[0].leaving
        if lone and not candidates:
            return topology.View(group.leader, servers)
        streams = self._copies.judge(await raft_meta.list_streams(self._bus), read_held(answers))
        return topology.View(group.leader, servers, candidates, streams)

    def _remember(self, members: tuple[Member, ...], records: list[ServerRecord], now: float) -> None:
        """Since when, on my own clock: nodes up and gone, servers told of."""
        up = {(one.record.id, one.record.incarnation) for one in members if one.state == UP}
        gone = {one.record.id for one in members if one.state in (GONE, LEFT)}
        gone |= {one.node for one in records} - {one.record.id for one in members}
        self._up_since = {who: self._up_since.get(who, now) for who in up}
        self._gone_since = {node: self._gone_since.get(node, now) for node in gone}
        self._told_since = {one.name: self._told_since.get(one.name, now) for one in records}

    def _servers(
        self, records: list[ServerRecord], group: raft_meta.Group, members: dict[str, Member], now: float
    ) -> tuple[Server, ...]:
        told = {one.name: one for one in records}
        found = []
        for name in sorted({*told, *group.members}):
            node = subjects.host_of(name)
            member = members.get(node)
            gone_at = self._gone_since.get(node)
            found.append(
                Server(
                    name=name,
                    node=node,
                    addresses=_addresses(member) if member else frozenset(),
                    told=name in told,
                    in_group=name in group.members,
                    current=group.members.get(name, False),
                    age_s=now - self._told_since.get(name, now),
                    gone_s=0.0 if gone_at is None else max(0.001, now - gone_at),
                    leaving=member is not None and member.state == DRAINING,
                )
            )
        return tuple(found)

    def _candidates(self, members: tuple[Member, ...], hosts: set[str], now: float) -> tuple[Candidate, ...]:
        found = []
        for one in members:
            node, since = one.record.id, self._up_since.get((one.record.id, one.record.incarnation))
            if node in hosts or since is None:
                continue
            failed_at = self._failed_at.get(node)
            found.append(
                Candidate(
                    node=node,
                    addresses=_addresses(one),
                    up_s=now - since,
                    free_bytes=one.record.capabilities.disk_free_bytes,
                    wired=one.record.wired,
                    willing=failed_at is None or now - failed_at > RETRY_AFTER_S,
                )
            )
        return tuple(found)

    # --- act ----------------------------------------------------------------------------------------
    async def _take(self, system: Bus, step: Step, fence: int) -> None:
        log.info("bus servers: %s", step)
        try:
            match step:
                case Promote(node):
                    await self._promote(node, fence)
                case Scale(streams, replicas):
                    await _all(self._bus.update_stream(stream, num_replicas=replicas) for stream in streams)
                case MoveStreams(streams, to):
                    await _all(self._bus.move_leader(stream, to) for stream in streams)
                case MoveMeta(to):
                    await admin_api.move_meta_leader(system, to)
                case Remove(server):
                    await raft_meta.remove(system, server)
                case Stop(node, server):
                    await self._stop(node, server, fence)
        except ApiError as error:
            # What is seen next tells what became of it; the plan asks again when it still wants it.
            log.info("bus servers: %s was refused: %s", step, error.message)
            return
        detail = {name: getattr(step, name) for name in step.__dataclass_fields__}
        if not isinstance(step, Scale | MoveStreams):
            await journal.emit(self._bus, f"bus.{type(step).__name__.lower()}", detail, fence=fence)

    async def _promote(self, node: str, fence: int) -> None:
        routes = tuple(route for one in await read_servers(self._bus) for route in one.routes)
        request = HostingRequest(do="host", fence=fence, routes=routes)
        try:
            error = await ask_node(self._bus, node, request)
        except BusUnavailable as unavailable:
            error = unavailable.message
        if error:
            log.warning("%s can't run a bus server: %s", node, error)
            self._failed_at[node] = self._clock()

    async def _stop(self, node: str, server: str, fence: int) -> None:
        if self._registry.state_of(node) not in ALIVE:
            await forget_server(self._bus, node, server)
            return
        try:
            error = await ask_node(self._bus, node, HostingRequest(do="stop", fence=fence, name=server))
        except BusUnavailable as unavailable:
            error = unavailable.message
        if error:
            log.warning("%s did not end its bus server: %s", node, error)
        self._failed_at[node] = self._clock()


async def _all(orders: Iterable[Awaitable[None]]) -> None:
    """Give all of them; the first refusal is raised once all are answered."""
    for outcome in await asyncio.gather(*orders, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _addresses(member: Member) -> frozenset[str]:
    return frozenset(member.record.addresses or (member.record.host,)) - {""}


async def read_servers(bus: Bus) -> list[ServerRecord]:
    """Every bus server its node tells of. Raises: BusUnavailable."""
    entries = await bus.kv(subjects.KV_MESH).entries(subjects.SERVER_KEYS)
    return sorted((coordination.decode_server(entry.value) for entry in entries), key=lambda one: one.name)


async def forget_server(bus: Bus, node: str, server: str) -> None:
    """Remove the record of a server that runs no more, unless its node runs another one by now."""
    kv = bus.kv(subjects.KV_MESH)
    entry = await kv.get(subjects.server_key(node))
    if entry is not None and coordination.decode_server(entry.value).name == server:
        await kv.delete(subjects.server_key(node), last=entry.revision)


async def ask_node(bus: Bus, node: str, request: HostingRequest) -> str:
    """Ask a node to host, or to stop hosting; "" when it does, else why not. Raises: BusUnavailable."""
    answer = await bus.request(subjects.bus_host(node), messages.encode(request), timeout_s=5.0)
    return coordination.decode_hosting_answer(answer.data).error
