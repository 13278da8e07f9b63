"""What the parts of one node share once it has joined a mesh, and the request to stop it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from mesh.bus.client import Bus
from mesh.coordination import MergeOrder
from mesh.discovery.identity import DataDir, MeshIdentity
from mesh.discovery.mdns import Discovery
from mesh.lanes import meets
from mesh.messages import Capabilities, NodeRecord
from node.config import NodeConfig

#: How long running tasks may take to end after a request to stop, seconds.
DRAIN_S = 30.0


class Shutdown:
    """Whether this node must stop, and how it leaves."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.drain_s = DRAIN_S
        """How long running tasks may take to end, seconds."""
        self.merge_order: MergeOrder | None = None
        """Set when this node's mesh merges into another one: after the stop the node is started again there."""

        self.refusal = ""
        """Set when this process must not go on as this node: why, and what to do. It then leaves without a goodbye."""

    def request(self) -> None:
        """Stop the node."""
        self.requested.set()


@dataclass
class NodeContext:
    """One node in its mesh."""

    config: NodeConfig
    data: DataDir
    api: str
    """http://host:port of its REST bridge."""
    bus: Bus
    mesh: MeshIdentity
    slots: int
    """How many tasks it runs at the same time."""
    capabilities: Capabilities
    """Calibration replaces it: measured speeds are part of it."""
    addresses: tuple[str, ...]
    """Where other machines reach it. The network watcher replaces them, and `discovery` with them."""
    discovery: Discovery
    shutdown: Shutdown
    record: NodeRecord = field(init=False)
    """What KV `nodes` holds of it; set before any part of the node starts."""

    def lacks(self, requires: dict[str, Any]) -> bool:
        """Whether this node does not meet the requirements of a task."""
        return bool(meets(requires, self.record))

    @property
    def node_id(self) -> str:
        """The id of this node."""
        return self.data.node_id
