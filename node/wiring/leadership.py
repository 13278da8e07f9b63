"""Wires what leads a mesh: the election on every node, and everything that only the leader does."""

from __future__ import annotations

from mesh.bus.client import Bus
from mesh.cluster.controller import ClusterController
from mesh.discovery.announcement import Announcement
from mesh.kinds.table import KINDS
from mesh.leader.election import Election
from mesh.leader.garbage_collection import GarbageCollector
from mesh.leader.leader import Leader
from mesh.membership import connections, twins
from mesh.membership.registry import Registry
from mesh.merge.detector import DuplicateMeshDetector
from node.context import NodeContext
from node.lifecycle import connecting
from node.lifecycle.bus_host import BusHost
from node.wiring.scaler import Scaler


class Leadership:
    """The election of one node, its leader and its scaler. `leader` runs its services during this node's terms."""

    def __init__(self, context: NodeContext, registry: Registry, bus_host: BusHost) -> None:
        self._context, self._bus_host = context, bus_host
        bus, node, config = context.bus, context.node_id, context.config.mesh_config
        self.election = election = Election(
            bus, node, context.data.incarnation, config, registry, is_connected=self._is_connected
        )
        self.scaler = Scaler(context, registry, election, bus_host)
        cluster = ClusterController(bus, election, registry, config, self._open_system)
        collector = GarbageCollector(bus, lambda: election.fence, config)
        detector = DuplicateMeshDetector(
            bus, node, election, self._peers, connecting.connector(context.config, node),
            registry.members,
        )  # fmt: skip
        resources = {name: spec.resources for name, spec in KINDS.items()}
        self.leader = Leader(
            bus, node, election, registry, config, resources, open_system=self._open_system,
            services=(
                cluster.run, collector.lanes, collector.pools, collector.blobs, detector.run,
                self.scaler.controller.run,
            ),
            more_alarms=lambda: cluster.alarms | detector.alarms | twins.alarms_of(registry.members()),
        )  # fmt: skip

    def _peers(self) -> tuple[Announcement, ...]:
        # The network watcher may replace `discovery`.
        discovery = self._context.discovery
        return (*discovery.peers(), *discovery.rivals())

    async def _open_system(self) -> Bus:
        context = self._context
        name = f"system {context.node_id}"
        return await connecting.open_system(self._bus_host.urls, context.mesh.id, name, context.config)

    async def _is_connected(self, node: str, incarnation: str) -> bool:
        return await connections.is_connected(self._open_system, node, incarnation)
