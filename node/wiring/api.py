"""Connects the REST bridge to a node: it answers the requests of `api` from the node's own parts.

The bridge listens before the node has joined, so that a taken port is reported at once; until then it answers 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import time
from typing import Any

import msgspec

from api.app import build_app
from api.http.keys import ApiSettings
from api.http.serving import Running, serve
from api.services.capacity import CapacityServices
from mesh import decoding, limits, subjects
from mesh.bus.errors import DamagedBlob
from mesh.bus.streams import count_waiting
from mesh.client import Mesh
from mesh.cluster.durability import safety, standstill
from mesh.decoding import readable
from mesh.discovery.identity import new_token
from mesh.errors import BadInput, BusUnavailable, Fault, QueztlError, TooMany
from mesh.leader.election import Election
from mesh.leader.leader import Leader
from mesh.limits import Limits
from mesh.membership import store_reports
from mesh.membership.failure_detector import FORGET_REGISTERED_S
from mesh.membership.member import REGISTERED
from mesh.membership.registry import Registry
from mesh.messages import Capabilities, NodeRecord, encode
from mesh.views import Accepted, BusView, NetworkView, NodeView, QueueView, RegistryView, SubmitRequest
from node.benchmarking import Benchmarking
from node.config import NodeConfig
from node.context import NodeContext
from node.heartbeat import HeartbeatPublisher
from node.lifecycle.bus_host import BusHost
from node.probes import descriptors

#: How long the mesh document waits for the bus to report the backlog, seconds.
BACKLOG_WITHIN_S = 1.0
#: When to try again while most bus servers are away, seconds.
STANDSTILL_AGAIN_S = 10.0


@dataclass(frozen=True)
class AnsweringParts:
    """The parts of a running node that answer REST requests."""

    context: NodeContext
    mesh: Mesh
    registry: Registry
    election: Election
    leader: Leader
    bus_host: BusHost
    heartbeat: HeartbeatPublisher
    benchmarks: Benchmarking
    capacity: CapacityServices


class NodeServices:
    """`api.services.node.Services` of one node."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts: AnsweringParts | None = None
        self.levels: Callable[[], dict[str, int]] = dict
        """limit -> how much of it the bridge uses."""
        self.waiting: NetworkView | None = None
        """What the node waits for before it has joined its mesh, as far as it is known."""

    def attach(self, parts: AnsweringParts) -> None:
        """The node has joined its mesh: answer from now on."""
        self._parts = parts

    @property
    def parts(self) -> AnsweringParts:
        """The parts that answer. Raises: BusUnavailable while the node is joining."""
        if self._parts is None:
            raise BusUnavailable(self.waits_for or "this node is still joining its mesh; try again in a second")
        return self._parts

    @property
    def waits_for(self) -> str:
        """What the node waits for, one sentence; "" while it is not known."""
        view = self.waiting.waiting if self.waiting is not None else None
        return view.reason if view is not None else ""

    @property
    def mesh(self) -> Mesh:
        """See Services."""
        return self.parts.mesh

    @property
    def benchmarks(self) -> Benchmarking:
        """See Services."""
        return self.parts.benchmarks

    @property
    def capacity(self) -> CapacityServices:
        """See Services."""
        return self.parts.capacity

    async def accept(self, request: SubmitRequest) -> Accepted:
        """See Services. The origin of a task defaults to the region of this node."""
        parts = self.parts
        return await parts.mesh.accept(replace(request, origin=request.origin or parts.context.config.region))

    async def network(self) -> NetworkView:
        """See Services."""
        if self._parts is None and self.waiting is not None:
            return self.waiting
        parts = self.parts
        context, leader = parts.context, parts.election.leader
        queued, replica_wait, alarms = await self._backlog()
        if replica_wait is None:
            # The bus stores nothing without a majority of its servers; users read this document then.
            alarms.append("The bus does not answer: running tasks go on, but the backlog and node states are unknown.")
        alarms += store_reports.alarms(parts.mesh.stores.reports).values()
        nodes = parts.registry.view(leader)
        there, away, failing = self._hosts(nodes)
        read = parts.mesh.stores.copies()
        # What the leader read from the servers lately. Its record may be out of date while the bus stores nothing.
        reason = read.waits or replica_wait if read is not None else None
        standing = standstill(there, away, failing)
        return NetworkView(
            mesh=context.mesh.name,
            mesh_id=context.mesh.id,
            leader=leader,
            fence=parts.election.leader_fence,
            bus=BusView(parts.bus_host.urls, safety(there, away, reason, failing), standing),
            queue=QueueView(None if standing else queued),  # a minority tells what it remembers
            alarms=(*alarms, *self._own_alarms(parts.registry)),
            registry=RegistryView(sum(view.state != REGISTERED for view in nodes), nodes),
        )

    def _hosts(self, nodes: tuple[NodeView, ...]) -> tuple[list[str], list[str], list[str]]:
        """The names of the machines whose bus server is there, is away, or is there and can't store."""
        hosts = {record.node for record in self.parts.bus_host.servers}
        connected = self.parts.context.bus.connected
        up = {view.id for view in nodes if connected and view.state not in ("gone", "left")} & hosts
        failing = {report.node for report in self.parts.mesh.stores.reports if not report.stores} & up
        there, away, broken = (
            [view.name for view in nodes if view.id in chosen] for chosen in (up - failing, hosts - up, failing)
        )
        return there, away, broken

    def explained(self, error: QueztlError) -> QueztlError:
        """See Services."""
        if self._parts is None or not isinstance(error, BusUnavailable) or isinstance(error, DamagedBlob):
            return error
        if (refusal := self._parts.mesh.stores.refusal()) is not None:
            return refusal
        standing = standstill(*self._hosts(self._parts.registry.view(self._parts.election.leader)))
        return BusUnavailable(standing, retry_after_s=STANDSTILL_AGAIN_S) if standing else error

    async def _backlog(self) -> tuple[int | None, str | None, list[str]]:
        """(tasks in all lanes, None: not known; what the replicas of the streams wait for, None when the bus
        does not answer; alarms).

        Takes BACKLOG_WITHIN_S at most: clients wait a few seconds for the mesh document.
        """
        parts = self.parts
        bus = parts.context.bus
        if not bus.connected:
            return None, None, []
        try:
            async with asyncio.timeout(BACKLOG_WITHIN_S):
                kv = bus.kv(subjects.KV_MESH)
                waiting, published, waits = await asyncio.gather(
                    count_waiting(bus), kv.get(subjects.ALARMS_KEY), kv.get(subjects.BUS_KEY)
                )
        except (QueztlError, TimeoutError):
            return None, None, []
        if parts.election.is_leader:
            alarms = list(parts.leader.alarms)
        else:
            alarms = list(readable(decoding.alarms, published) or ())
        reason = (readable(decoding.texts, waits) or {}).get("waits", "")
        return waiting, reason, alarms

    def _own_alarms(self, registry: Registry) -> list[str]:
        """The alarms of this node alone."""
        levels = {**self.levels(), "held_bytes": registry.announcements.size_bytes}
        found = list(limits.alarms(levels, self._limits).values())
        return [*found, alarm] if (alarm := descriptors.alarm(limits.ALARM_SHARE)) else found

    async def register(
        self, name: str, capabilities: dict[str, Any], labels: dict[str, str], node_id: str = ""
    ) -> tuple[str, tuple[str, ...]]:
        """See Services."""
        parts, most = self.parts, self._limits
        record = NodeRecord(
            id=node_id or new_token("n"),
            name=name,
            incarnation="",
            state="registered",
            labels=labels,
            joined_at=time(),
            capabilities=_capabilities(capabilities),
            registered_by=parts.context.node_id,
        )
        state = parts.registry.state_of(record.id)
        states = parts.registry.judged().values()
        if not state and sum(other == REGISTERED for other in states) >= most.registered_nodes:
            raise TooMany(
                f"{most.registered_nodes} nodes are registered and have not connected, as many as there may be; each "
                f"is forgotten after {FORGET_REGISTERED_S / 60:g} minutes",
                retry_after_s=60.0,
            )
        if state in ("", REGISTERED):
            await parts.context.bus.kv(subjects.KV_NODES).put(record.id, encode(record))
        return record.id, parts.bus_host.urls

    def ready(self) -> tuple[bool, dict[str, str]]:
        """See Services."""
        if self._parts is None:
            return False, {"mesh": self.waits_for or "still joining"}
        connected, state = self._parts.context.bus.connected, self._parts.heartbeat.state
        refusal = self._parts.mesh.stores.refusal()
        reason = refusal.message if refusal is not None else "ok"
        checks = {
            "bus": reason if connected else "the connection to the bus is lost; reconnecting",
            "state": "ok" if state == "up" else state,
        }
        return all(check == "ok" for check in checks.values()), checks


def _capabilities(given: dict[str, Any]) -> Capabilities:
    """The capabilities in a register request. Raises: BadInput."""
    try:
        return msgspec.convert(given, Capabilities)
    except msgspec.ValidationError as error:
        raise BadInput("the capabilities are not valid", (Fault("capabilities", str(error)),)) from None


class Bridge:
    """The REST bridge of one node: it listens from the start, and answers when the node is in its mesh."""

    def __init__(self, services: NodeServices, running: Running) -> None:
        self._services, self._running = services, running

    @property
    def url(self) -> str:
        """http://host:port"""
        return self._running.url

    def show(self, waiting: NetworkView | None) -> None:
        """Answer `network/status` with what the node waits for, until `attach`."""
        self._services.waiting = waiting

    def attach(self, parts: AnsweringParts) -> None:
        """Answer requests from `parts`."""
        self._services.attach(parts)

    async def close(self) -> None:
        """Stop listening. May be called twice."""
        await self._running.close()


async def listen(config: NodeConfig, addresses: tuple[str, ...], version: str) -> Bridge:
    """Take the port of the API. `addresses`: where other machines reach this one. Raises: CannotStart."""
    most = limits.fit_to_descriptors(config.mesh_config.limits, descriptors.limit())
    services = NodeServices(most)
    advertise = addresses[0] if addresses and not config.api_is_local else ""
    settings = ApiSettings(open_api=config.open_api, limits=most, advertise_host=advertise, version=version)
    running = await serve(build_app(services, settings), config.api_host, config.api_port)
    services.levels = running.levels
    return Bridge(services, running)
