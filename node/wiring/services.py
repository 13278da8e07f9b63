"""What runs as long as a node does, and what its failure means: started again, or the end of the node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mesh.supervision import Service
from node.lifecycle import merge_follow
from node.lifecycle.network_change import watch_network

if TYPE_CHECKING:
    from node.daemon import Node


def parts(node: Node, held: asyncio.Event) -> list[Service]:
    """The services of `node`; `held` is set while it holds work."""
    return [
        Service("heartbeat", node.heartbeat.run, "stop_node"),
        Service("pulse", lambda: node.heartbeat.pulse(held), "stop_node"),
        Service("registry", node.registry.run),
        Service("ingress", node.ingress.run),
        Service("election", node.election.run),
        Service("leader", node.leader.run),
        Service("hosting", node.bus_host.run),
        Service("roaming", lambda: watch_network(node)),
        Service("rejoining", lambda: merge_follow.follow(node)),
        Service("measuring", node.calibrator.run),
        Service("dead man", node.managed.run),
        Service("policy", node.capacity.run),
    ]
