"""The cluster controller grows, heals and shrinks the bus: the loop beside `mesh/cluster/topology.py`, on the leader.

It keeps no state that matters: the next step follows from what is observed, so a leader that dies between two steps is
replaced by one that continues. The lease is read again before each action.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from mesh import decoding, messages, subjects
from mesh.bus import admin_api
from mesh.bus.errors import ApiError
from mesh.cluster import clocks, raft_meta, server_load, topology, upkeep
from mesh.cluster.host_failures import HostFailures
from mesh.cluster.observed import Server
from mesh.cluster.replicas import Replicas, read_held, read_states
from mesh.cluster.restart_turn import TURN_S, take_turn
from mesh.cluster.steps import MoveMeta, MoveStreams, Promote, Remove, Restart, Scale, Settle, Step, Stop, Wait
from mesh.cluster.topology import Candidate, Rules
from mesh.config import MeshConfig
from mesh.coordination import BusReport, HostingAnswer, HostingRequest, ServerRecord
from mesh.decoding import Unreadable, readable, readable_of
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
#: The period in which the connections to the bus servers are counted, seconds.
COUNT_EVERY_S = 5.0
#: The period while steps are taken, seconds.
LOOK_SOON_S = 0.25


def rules_of(config: MeshConfig) -> Rules:
    """The rules of the plan, from the settings of the mesh."""
    return Rules(config.bus_servers, config.bus_candidate_s, config.bus_server_gone_s, config.bus_join_s)


class ClusterController:
    """Keeps the bus on its target number of machines. `run(fence)` until cancelled."""

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
        self._recorded_since: dict[str, float] = {}
        self._late_since: dict[str, float] = {}
        self._restarted_at: dict[str, float] = {}
        self._failures = HostFailures(config.bus_join_s)
        self._copies = Replicas(clock)
        self._reason: str | None = None
        self._published: str | None = None
        self._clock_alarms: dict[str, str] = {}
        self._load_alarms: dict[str, str] = {}
        self._counted_at = -math.inf

    @property
    def alarms(self) -> dict[str, str]:
        """Stable name -> a sentence for people; empty while another node leads."""
        return self._clock_alarms | self._load_alarms

    async def run(self, fence: int) -> None:
        """Observe, take one step, repeat."""
        system = await self._open_system()
        # Observations of an earlier term are void.
        self._reason, self._published, self._copies = None, None, Replicas(self._clock)
        try:
            while True:
                step = topology.plan(await self._observe(system), self._rules)
                await self._count_connections(system)
                self._report(step, fence)
                if isinstance(step, Wait):
                    await self._publish_reason(step.reason, fence)
                elif await self._election.confirm() == fence:
                    await self._take(system, step, fence)
                await asyncio.sleep(LOOK_EVERY_S if step == Wait() else LOOK_SOON_S)
        finally:
            self._clock_alarms.clear()
            self._load_alarms.clear()
            await system.close()

    async def _publish_reason(self, reason: str, fence: int) -> None:
        """Publish why the cluster can't reach its target state ("": it has), where all nodes read it.

        A reason that holds for only one observation is not published: a busy server that answered late, or a replica
        that lagged for a moment.
        """
        before, self._reason = self._reason, reason
        if reason != before or reason == self._published or self._election.fence != fence:
            return
        if reason:
            log.info("bus servers: %s", reason)
        await self._bus.kv(subjects.KV_MESH).put(subjects.BUS_KEY, messages.encode({"waits": reason}))
        self._published = reason

    def _report(self, step: Step, fence: int) -> None:
        """Tell all nodes what was just read from the servers. A record would not do: it can't be written while the bus
        stores nothing."""
        waits = step.reason if isinstance(step, Wait) else "the bus servers are being rearranged"
        if isinstance(step, Wait) and step.reason != self._reason:
            if self._reason is None:
                return
            waits = self._reason  # as in `_publish_reason`: only what two observations found
        if self._election.fence == fence:
            self._bus.send(subjects.BUS_REPORT, messages.encode(BusReport(fence=fence, waits=waits)))

    # --- observing ----------------------------------------------------------------------------------
    async def _observe(self, system: Bus) -> topology.View:
        records = await read_servers(self._bus)
        names = [record.name for record in records]
        # A single server needs no comparison of replicas.
        answers = await raft_meta.ask_all(system, streams=len(names) > 1, known=names)
        groups = raft_meta.read_groups(answers, names)
        self._compare_clocks(answers)
        group, members, now = raft_meta.leaders_view(groups), self._registry.members(), self._clock()
        self._remember(members, records, raft_meta.answering_servers(answers), now)
        if group is None:
            return topology.View(leader="", no_leader_reason=raft_meta.no_leader_reason(groups))
        self._failures.observe(group.members, (record.node for record in records))
        servers = self._servers(records, group, {member.record.id: member for member in members}, now)
        candidates = self._candidates(members, {record.node for record in records}, now)
        lone = len(group.members) == 1 and len(servers) == 1 and not servers[0].leaving
        if lone and not candidates:
            return topology.View(group.leader, servers)
        listed = self._copies.judge(await raft_meta.list_streams(self._bus), read_held(answers))
        streams = self._copies.compare(listed, read_states(answers))
        return topology.View(group.leader, servers, candidates, streams, group.size)

    def _compare_clocks(self, answers: list[dict[str, Any]]) -> None:
        found = clocks.alarms_of(clocks.times_of(answers), self._names())
        if found and not self._clock_alarms:
            log.warning("%s", "; ".join(found.values()))
        self._clock_alarms = found

    def _names(self) -> dict[str, str]:
        return {member.record.id: member.record.name for member in self._registry.members()}

    async def _count_connections(self, system: Bus) -> None:
        now = self._clock()
        if now - self._counted_at < COUNT_EVERY_S:
            return
        self._counted_at = now
        answers = await raft_meta.ask_servers(system, server_load.VARZ, {})
        found = server_load.alarms_of(server_load.connections_of(answers), self._names())
        for name in found.keys() - self._load_alarms.keys():
            log.warning("alarm: %s", found[name])
        self._load_alarms = found

    def _remember(
        self, members: tuple[Member, ...], records: list[ServerRecord], answered: frozenset[str], now: float
    ) -> None:
        """Note since when, on the local clock, nodes are up or gone and servers are recorded.

        A node whose server `answered` is not gone, whatever its heartbeats say: it starts, or it is frozen, and its
        server serves. Removed from the group, that server would run on, with the clients that are connected to it.
        """
        up = {(member.record.id, member.record.incarnation) for member in members if member.state == UP}
        gone = {member.record.id for member in members if member.state in (GONE, LEFT)}
        gone |= {record.node for record in records} - {member.record.id for member in members}
        gone -= {subjects.host_of(server) for server in answered}
        self._up_since = {node: self._up_since.get(node, now) for node in up}
        self._gone_since = {node: self._gone_since.get(node, now) for node in gone}
        self._recorded_since = {record.name: self._recorded_since.get(record.name, now) for record in records}

    def _servers(
        self, records: list[ServerRecord], group: raft_meta.Group, members: dict[str, Member], now: float
    ) -> tuple[Server, ...]:
        recorded = {record.name for record in records}
        found: list[Server] = []
        for name in sorted({*recorded, *group.members}):
            node = subjects.host_of(name)
            member = members.get(node)
            gone_at = self._gone_since.get(node)
            found.append(
                Server(
                    name=name,
                    node=node,
                    addresses=_addresses(member) if member else frozenset(),
                    recorded=name in recorded,
                    in_group=name in group.members,
                    current=group.members.get(name, False),
                    age_s=math.inf if self._failures.was_removed(name) else now - self._recorded_since.get(name, now),
                    gone_s=0.0 if gone_at is None else max(0.001, now - gone_at),
                    leaving=member is not None and member.state == DRAINING,
                    late_s=self._late_s(name, group, gone_at is None, now),
                    restarted_s=now - self._restarted_at.get(name, -math.inf),
                )
            )
        return tuple(found)

    def _late_s(self, server: str, group: raft_meta.Group, node_is_up: bool, now: float) -> float:
        """How long a member has not been current while its node was up."""
        if group.members.get(server, True) or not node_is_up:
            self._late_since.pop(server, None)
            return 0.0
        return now - self._late_since.setdefault(server, now)

    def _candidates(self, members: tuple[Member, ...], hosts: set[str], now: float) -> tuple[Candidate, ...]:
        found: list[Candidate] = []
        for member in members:
            node = member.record.id
            since = self._up_since.get((node, member.record.incarnation))
            if node in hosts or since is None:
                continue
            found.append(
                Candidate(
                    node=node,
                    addresses=_addresses(member),
                    up_s=now - since,
                    free_bytes=member.record.capabilities.disk_free_bytes,
                    wired=member.record.wired,
                    starting=self._failures.is_starting(node, now),
                    willing=self._failures.is_willing(node, now),
                )
            )
        return tuple(found)

    # --- acting -------------------------------------------------------------------------------------
    async def _take(self, system: Bus, step: Step, fence: int) -> None:
        log.info("bus servers: %s", step)
        try:
            match step:
                case Promote(node):
                    await self._promote(node, fence)
                case Scale(streams, replicas):
                    if replicas == 1:
                        self._copies.scaled_down(streams)
                    await _all(self._bus.update_stream(stream, num_replicas=replicas) for stream in streams)
                case MoveStreams(streams, to):
                    await _all(self._bus.move_leader(stream, to) for stream in streams)
                case MoveMeta(to):
                    await admin_api.move_meta_leader(system, to)
                case Remove(server):
                    await raft_meta.remove(system, server)
                    self._failures.removed(server)
                case Stop(node, server):
                    await self._stop(node, server, fence)
                case Settle(streams):
                    await _all(self._bus.append_entry(stream) for stream in streams)
                    self._copies.settled(streams)
                case Restart(node, server):
                    await self._restart(node, server, fence)
        except ApiError as error:
            # The next observation shows the outcome; the plan repeats the step if it is still needed.
            log.info("bus servers: %s was refused: %s", step, error.message)
            return
        detail = {name: getattr(step, name) for name in step.__dataclass_fields__}
        if not isinstance(step, Scale | MoveStreams | Settle):
            await journal.emit(self._bus, f"bus.{type(step).__name__.lower()}", detail, fence=fence)

    async def _promote(self, node: str, fence: int) -> None:
        routes = tuple(route for record in await read_servers(self._bus) for route in record.routes)
        request = HostingRequest(do="host", fence=fence, routes=routes)
        try:
            answer = await ask_node(self._bus, node, request)
        except BusUnavailable as unavailable:
            answer = HostingAnswer(unavailable.message)
        if answer.error and not answer.doing:
            log.warning("%s can't run a bus server: %s", node, answer.error)
            self._failures.failed(node, self._clock())
        elif answer.doing != "stop":  # else it is asked again when it has ended its former server
            self._failures.began(node, self._clock())

    async def _restart(self, node: str, server: str, fence: int) -> None:
        """Have the server restarted, if no other one was a moment ago."""
        has_turn = await take_turn(self._bus, node)
        self._restarted_at[server] = self._clock() - (0.0 if has_turn else upkeep.RESTART_AGAIN_S - TURN_S / 2)
        if has_turn:
            answer = await ask_node(self._bus, node, HostingRequest(do="restart", fence=fence, name=server))
            if answer.error:
                log.info("%s does not restart its bus server: %s", node, answer.error)

    async def _stop(self, node: str, server: str, fence: int) -> None:
        if self._registry.state_of(node) not in ALIVE:
            await forget_server(self._bus, node, server)
            return
        try:
            answer = await ask_node(self._bus, node, HostingRequest(do="stop", fence=fence, name=server))
        except BusUnavailable as unavailable:
            answer = HostingAnswer(unavailable.message)
        if answer.doing:
            return
        if answer.error:
            log.warning("%s did not stop its bus server: %s", node, answer.error)
            self._failures.failed(node, self._clock())
        else:
            self._failures.stopped(node, server, self._clock())


async def _all(orders: Iterable[Awaitable[None]]) -> None:
    """Run all orders at once, then raise the first error, if any."""
    for outcome in await asyncio.gather(*orders, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _addresses(member: Member) -> frozenset[str]:
    return frozenset(member.record.addresses or (member.record.host,)) - {""}


async def read_servers(bus: Bus) -> list[ServerRecord]:
    """The records of all bus servers, sorted by name. Raises: BusUnavailable."""
    entries = await bus.kv(subjects.KV_MESH).entries(subjects.SERVER_KEYS)
    return sorted(readable_of(decoding.server, entries), key=lambda record: record.name)


async def forget_server(bus: Bus, node: str, server: str) -> None:
    """Delete the record of a server that no longer runs, unless its node runs another one by now."""
    kv = bus.kv(subjects.KV_MESH)
    entry = await kv.get(subjects.server_key(node))
    if (record := readable(decoding.server, entry)) is not None and entry is not None and record.name == server:
        await kv.delete(subjects.server_key(node), last=entry.revision)


async def ask_node(bus: Bus, node: str, request: HostingRequest) -> HostingAnswer:
    """Ask a node to start or stop a bus server. Raises: BusUnavailable."""
    answer = await bus.request(subjects.bus_host(node), messages.encode(request), timeout_s=5.0)
    found = decoding.hosting_answer(answer.data)
    return HostingAnswer(f"its answer {found.reason}") if isinstance(found, Unreadable) else found
