"""The node's own REST bridge: what `api` asks of the mesh, answered by this node's parts.

It listens before the node has joined, so that a taken port is known at once; until then it answers 503.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import time
from typing import TYPE_CHECKING, Any

import msgspec

from api.app import build_app
from api.http.keys import ApiSettings
from api.http.serving import Running, serve
from api.services.capacity import CapacityServices
from mesh import subjects
from mesh.bus.streams import list_lanes
from mesh.client import Mesh
from mesh.cluster.durability import safety
from mesh.discovery.identity import new_token
from mesh.errors import BadInput, BusUnavailable, Fault, QueztlError
from mesh.messages import Capabilities, NodeRecord, decode_any, encode
from mesh.views import Accepted, NetworkView, SubmitRequest
from node.benchmarking import Benchmarking
from node.config import NodeConfig

if TYPE_CHECKING:
    from node.daemon import Node


#: How long the document of the mesh waits for the bus to say how much is queued.
QUEUE_WITHIN_S = 1.0


class NodeServices:
    """`api.services.node.Services`, on one node."""

    def __init__(self) -> None:
        self._node: Node | None = None

    def attach(self, node: Node) -> None:
        """The node is in its mesh: answer from now on."""
        self._node = node

    @property
    def node(self) -> Node:
        """The node. Raises: BusUnavailable while it is still joining."""
        if self._node is None:
            raise BusUnavailable("this node is still joining its mesh; try again in a second")
        return self._node

    @property
    def mesh(self) -> Mesh:
        """The node's own client."""
        return self.node.mesh

    async def accept(self, request: SubmitRequest) -> Accepted:
        """See Services. Work that does not say where it comes from comes from here."""
        return await self.mesh.accept(replace(request, origin=request.origin or self.node.record.region))

    async def network(self) -> NetworkView:
        """See Services."""
        node = self.node
        leader = node.election.leader
        queued, waits, alarms = await self._queued()
        if waits is None:
            # Without most of its servers the bus stores nothing; that is when people look here.
            alarms.append("The bus does not serve. What runs goes on; how much waits, and who is up, is not known.")
        nodes = node.registry.view(leader)
        hosts = {one.node for one in node.bus_host.servers}
        up = {one.id for one in nodes if node.bus.connected and one.state not in ("gone", "left")}
        there = [one.name for one in nodes if one.id in hosts & up]
        away = [one.name for one in nodes if one.id in hosts - up]
        return NetworkView(
            mesh=node.joined.mesh.name,
            mesh_id=node.joined.mesh.id,
            leader=leader,
            fence=node.election.leader_fence,
            bus_urls=node.bus_host.urls,
            safety=safety(there, away, waits or ""),
            nodes=nodes,
            queued=queued,
            alarms=tuple(alarms),
        )

    async def _queued(self) -> tuple[int, str | None, list[str]]:
        """(how many tasks wait, what copies of the streams wait for or None when the bus does not answer, what the
        master wants people to know). Quick: clients wait for this document a few seconds only."""
        bus = self.node.bus
        if not bus.connected:
            return 0, None, []
        try:
            async with asyncio.timeout(QUEUE_WITHIN_S):
                kv = bus.kv(subjects.KV_MESH)
                lanes, told, waits = await asyncio.gather(
                    list_lanes(bus), kv.get(subjects.ALARMS_KEY), kv.get(subjects.BUS_KEY)
                )
                alarms = list(self.node.leader.alarms) if self.node.election.is_leader else None
                if alarms is None:
                    alarms = [str(one) for one in decode_any(told.value)] if told else []
                reason = str(decode_any(waits.value)["waits"]) if waits else ""
                return sum(info.waiting for info in lanes.values()), reason, alarms
        except (QueztlError, TimeoutError):
            return 0, None, []

    async def register(
        self, name: str, capabilities: dict[str, Any], labels: dict[str, str], node_id: str = ""
    ) -> tuple[str, tuple[str, ...]]:
        """See Services."""
        node = self.node
        record = NodeRecord(
            id=node_id or new_token("n"),
            name=name,
            incarnation="",
            state="registered",
            labels=labels,
            joined_at=time(),
            capabilities=_capabilities(capabilities),
            registered_by=node.record.id,
        )
        if node.registry.state_of(record.id) in ("", "registered"):
            await node.bus.kv(subjects.KV_NODES).put(record.id, encode(record))
        return record.id, node.bus_host.urls

    @property
    def benchmarks(self) -> Benchmarking:
        """See Services."""
        return self.node.benchmarking

    @property
    def capacity(self) -> CapacityServices:
        """See Services."""
        return self.node.capacity.service

    def ready(self) -> tuple[bool, dict[str, str]]:
        """See Services."""
        if self._node is None:
            return False, {"mesh": "still joining"}
        node = self._node
        checks = {
            "bus": "ok" if node.bus.connected else "the connection to the bus is lost; reconnecting",
            "state": "ok" if node.heartbeat.state == "up" else node.heartbeat.state,
        }
        return all(text == "ok" for text in checks.values()), checks


def _capabilities(given: dict[str, Any]) -> Capabilities:
    """What a machine says it has. Raises: BadInput."""
    try:
        return msgspec.convert(given, Capabilities)
    except msgspec.ValidationError as error:
        raise BadInput("the capabilities are not valid", (Fault("capabilities", str(error)),)) from None


class Bridge:
    """The bridge of one node: it listens at once, and serves when the node is in its mesh."""

    def __init__(self, services: NodeServices, running: Running) -> None:
        self._services, self._running = services, running

    @property
    def url(self) -> str:
        """http://host:port"""
        return self._running.url

    def attach(self, node: Node) -> None:
        """Serve this node."""
        self._services.attach(node)

    async def close(self) -> None:
        """Stop listening."""
        await self._running.close()


async def listen(config: NodeConfig, addresses: tuple[str, ...], version: str) -> Bridge:
    """Take the port; `addresses`: those of this machine that others may use. Raises: CannotStart."""
    services = NodeServices()
    advertise = addresses[0] if addresses and not config.api_is_local else ""
    app = build_app(services, ApiSettings(open_api=config.open_api, advertise_host=advertise, version=version))
    return Bridge(services, await serve(app, config.api_host, config.api_port))
