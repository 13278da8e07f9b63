"""Where a node meets the scaler: what it is handed of the mesh, and what the node's own flags say to its policy.

Beside `node/wiring/api.py` the one file that knows two of the three packages in the middle.
"""

from __future__ import annotations

import logging
from time import time
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus.errors import WrongSequence
from mesh.capacity import TOKEN_LABEL, LeaveOrder
from mesh.errors import QueztlError
from mesh.kinds.table import KINDS
from mesh.membership.member import ALIVE
from mesh.messages import encode
from node.config import NodeConfig
from scaling.controller import Controller
from scaling.observation.mesh_access import MeshAccess
from scaling.providers.base import Provider
from scaling.providers.local import LocalProvider
from scaling.service import ScalingService
from scaling.state import settings
from scaling.state.store import Store

if TYPE_CHECKING:
    from node.daemon import Node

log = logging.getLogger(__name__)


class Capacity:
    """The scaler of one node: it decides while that node is master, and answers its API always."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.store = Store(node.bus)
        self.local = LocalProvider(node.data.path / "started", lambda: flags_of(node.config))
        providers: dict[str, Provider] = {self.local.name: self.local}
        mesh = node.joined.mesh
        self.world = MeshAccess(
            bus=node.bus, me=node.data.node_id, mesh=(mesh.id, mesh.name), members=node.registry.members,
            confirm=node.election.confirm, join=lambda: node.bus_host.urls,
            resources={name: spec.resources for name, spec in KINDS.items()}, providers=providers,
        )  # fmt: skip
        self.controller = Controller(self.world)
        self.service = ScalingService(self.store, self.world)

    async def run(self) -> None:
        """Once, at the start: what the flags say becomes the mesh's policy, unless people set one by hand."""
        config = self._node.config
        given = {"max_nodes": config.max_nodes, "min_nodes": config.min_nodes}
        flags = {name: value for name, value in given.items() if value is not None}
        while flags:
            before = await self.store.policy()
            if before is not None and before.by == settings.BY_HAND:
                log.warning(
                    "the mesh's policy was set by hand (version %d), so --max-nodes and --min-nodes of this node do "
                    "not count", before.version,
                )  # fmt: skip
            after = settings.from_flags(before, flags, self._node.data.node_id, time())
            if after is None:
                return
            try:
                await self.store.put_policy(before, after)
                log.info("this mesh may have up to %s nodes now", after.settings.get("max_nodes", "100"))
                return
            except WrongSequence:
                log.debug("another node's flags were written first; looking again")

    async def send_away_before_the_end(self) -> None:
        """The mesh ends with this node (its bus is here, and no other machine's node is there): those it started go
        too. What they run goes on for as long as they can; best effort, their dead-man switch does the rest."""
        node = self._node
        if node.bus_host.server is None or not node.bus.connected or node.moves_to is not None:
            return
        others = [one for one in node.registry.members() if one.state in ALIVE and one.record.id != node.record.id]
        started = [one.record for one in others if one.record.labels.get(TOKEN_LABEL)]
        if not started or len(started) < len(others):
            return
        log.info("%d nodes that were started for this mesh leave with it", len(started))
        for one in started:
            order = LeaveOrder(token=one.labels[TOKEN_LABEL], fence=node.election.fence, reason="the mesh ends")
            try:
                node.bus.send(subjects.leave(one.id), encode(order))
            except QueztlError as error:
                log.debug("%s was not told: %s", one.id, error)


def flags_of(config: NodeConfig) -> list[str]:
    """How a node on this machine is to run so that it is like this one. Pure."""
    flags = ["--preset", config.preset, "--log-level", config.log_level, "--measure-after", "0"]
    pairs = [
        ("--interface", config.interface), ("--region", config.region), ("--at", config.at),
        ("--slots", str(config.slots) if config.slots else ""),
        *(("--label", f"{name}={text}") for name, text in config.labels.items()),
        *(("--models", one) for one in config.models),
        *(("--web-target", one) for one in config.web_targets),
    ]  # fmt: skip
    flags += [word for flag, text in pairs if text for word in (flag, text)]
    return flags + (["--fault-kinds"] if config.fault_kinds else []) + (["--json-logs"] if config.json_logs else [])
