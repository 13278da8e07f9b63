"""Connects the scaler to a node: its access to the mesh, and the policy that the node's own flags set.

Beside `node/wiring/api.py` this is the only file that imports two of the packages node, api and scaling.
"""

from __future__ import annotations

import logging
from time import time

from mesh import data_folder, subjects
from mesh.bus.errors import WrongSequence
from mesh.capacity import TOKEN_LABEL, LeaveOrder
from mesh.errors import QueztlError
from mesh.kinds.table import KINDS
from mesh.leader.election import Election
from mesh.membership.member import ALIVE
from mesh.membership.registry import Registry
from mesh.messages import encode
from node.config import NodeConfig
from node.context import NodeContext
from node.lifecycle.bus_host import BusHost
from scaling.controller import Controller
from scaling.observation.mesh_access import MeshAccess
from scaling.providers.base import Provider
from scaling.providers.local import LocalProvider
from scaling.service import ScalingService
from scaling.state import settings
from scaling.state.store import Store

log = logging.getLogger(__name__)


class Scaler:
    """The scaler of one node: `controller` decides while the node is leader, `service` always answers the API."""

    def __init__(self, context: NodeContext, registry: Registry, election: Election, bus_host: BusHost) -> None:
        self._context, self._registry, self._election, self._bus_host = context, registry, election, bus_host
        self._store = Store(context.bus)
        local = LocalProvider(context.data.path / data_folder.STARTED_NODES, lambda: flags_like(context.config))
        providers: dict[str, Provider] = {local.name: local}
        access = MeshAccess(
            bus=context.bus, node_id=context.node_id, mesh_id=context.mesh.id, mesh_name=context.mesh.name,
            members=registry.members, confirm_lease=election.confirm, join_urls=lambda: bus_host.urls,
            resources={name: spec.resources for name, spec in KINDS.items()}, providers=providers,
        )  # fmt: skip
        self.controller = Controller(access)
        self.service = ScalingService(self._store, access)

    async def run(self) -> None:
        """Once, at the start: make the node's flags the policy of the mesh, unless a person has set the policy."""
        config = self._context.config
        given = {"max_nodes": config.max_nodes, "min_nodes": config.min_nodes}
        flags = {name: value for name, value in given.items() if value is not None}
        while flags:
            before = await self._store.policy()
            if before is not None and (ignored := settings.ignored_flags(before, flags)):
                log.warning("the flags of this node don't change the policy of the mesh: %s", ignored)
            after = settings.from_flags(before, flags, self._context.node_id, time())
            if after is None:
                return
            try:
                await self._store.put_policy(before, after)
                limit = after.settings.get("max_nodes", "100") if after.enabled else "0 started"
                log.info("the limit of this mesh is now %s nodes", limit)
                return
            except WrongSequence:
                log.debug("another node has written the policy in the meantime; reading it again")

    async def dismiss_started_nodes(self) -> None:
        """Order the nodes that the scaler started to leave, if the mesh ends with this node.

        The mesh ends when its only bus server is here and all other nodes were started by the scaler. They finish
        their running tasks as far as possible. Best effort: their dead-man switch does the rest.
        """
        context = self._context
        if self._bus_host.server is None or not context.bus.connected or context.shutdown.merge_order is not None:
            return
        others = [
            member.record
            for member in self._registry.members()
            if member.state in ALIVE and member.record.id != context.node_id
        ]
        started = [record for record in others if record.labels.get(TOKEN_LABEL)]
        if not started or len(started) < len(others):
            return
        log.info("this mesh ends with this node: ordering the %d nodes that the scaler started to leave", len(started))
        for record in started:
            order = LeaveOrder(token=record.labels[TOKEN_LABEL], fence=self._election.fence, reason="the mesh ends")
            try:
                context.bus.send(subjects.leave(record.id), encode(order))
            except QueztlError as error:
                log.debug("could not order node %s to leave: %s", record.id, error)


def flags_like(config: NodeConfig) -> list[str]:
    """The flags that start another node on this machine with the same settings. Pure."""
    flags = ["--preset", config.preset, "--log-level", config.log_level, "--measure-after", "0"]
    pairs = [
        ("--interface", config.interface), ("--region", config.region), ("--at", config.at),
        ("--slots", str(config.slots) if config.slots else ""),
        *(("--label", f"{name}={value}") for name, value in config.labels.items()),
        *(("--models", folder) for folder in config.models),
        *(("--web-target", target) for target in config.web_targets),
    ]  # fmt: skip
    flags += [argument for flag, value in pairs if value for argument in (flag, value)]
    return flags + (["--fault-kinds"] if config.fault_kinds else []) + (["--json-logs"] if config.json_logs else [])
