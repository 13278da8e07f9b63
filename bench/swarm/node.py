"""A node of a swarm: the real node (`node/daemon.py`) without the parts of which a machine has only one.

It joins, sends heartbeats, elects, pulls, completes and watches with the parts of a real node. It has no REST bridge,
no mDNS and no worker processes, and shares the probed capabilities with the other nodes of its process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from bench.swarm.echo_executor import EchoExecutor
from mesh.bus.client import Message
from mesh.discovery.announcement import Announcement
from mesh.discovery.identity import DataDir
from mesh.discovery.mdns import Discovery
from mesh.membership.member import GONE, SUSPECT, UP
from mesh.messages import Capabilities
from mesh.supervision import Service
from mesh.views import NetworkView
from node.config import NodeConfig
from node.daemon import Node
from node.executor.executor import Executor
from node.wiring.api import AnsweringParts, Bridge

#: Services that a swarm node does not run: the machine belongs to the whole swarm.
LEFT_OUT = ("network watcher", "calibrator")


class NoBridge:
    """In the place of the REST bridge: no API."""

    url = ""

    def attach(self, parts: AnsweringParts) -> None:
        """Nothing to serve."""

    def show(self, waiting: NetworkView | None) -> None:
        """Nobody asks."""

    async def close(self) -> None:
        """Nothing to close."""


class NoDiscovery:
    """In the place of mDNS: a swarm node is given the URLs of its bus."""

    trouble = ""

    async def announce(self, announcement: Announcement) -> None:
        """Nothing is announced."""

    def peers(self) -> tuple[Announcement, ...]:
        """No peer is discovered."""
        return ()

    async def stop(self) -> None:
        """Nothing to stop."""


class SwarmNode(Node):
    """One node of a swarm, with a log of its registry and its plan. Times are of this machine's monotonic clock."""

    def __init__(self, config: NodeConfig, probed: Capabilities, is_wrong: Callable[[], bool]) -> None:
        """`is_wrong`: called for each task; whether to falsify its result (to prove that the benchmark finds it)."""
        super().__init__(config)
        self._probed, self._is_wrong = probed, is_wrong
        self.up: set[str] = set()
        """The nodes that are up, by its registry."""
        self.gone_at: dict[str, float] = {}
        """node -> when this node first considered it gone, since `forget`"""
        self.suspected: dict[str, int] = {}
        """node -> how often it was suspected, since `forget`"""
        self.ranked_at: dict[str, float] = {}
        """node in the current plan -> when it was ranked"""
        self.unranked_at: dict[str, float] = {}
        """node -> when it left the plan, since `forget`"""
        self.recorded_at = 0.0
        """When its first record was sent to the bus."""
        self.on_changed: Callable[[], None] = lambda: None
        """Called when the registry, the plan or the held tasks have changed."""

    def forget(self) -> None:
        """Begin a new log."""
        for log in (self.gone_at, self.suspected, self.unranked_at):
            log.clear()

    # --- what it lacks ------------------------------------------------------------------------------
    async def _open_bridge(self, addresses: tuple[str, ...]) -> Bridge:
        return cast(Bridge, NoBridge())

    async def _open_discovery(self, addresses: tuple[str, ...]) -> Discovery:
        return cast(Discovery, NoDiscovery())

    async def _probe(self, data: DataDir) -> Capabilities:
        return self._probed

    def _make_executor(self) -> Executor:
        return cast(
            Executor,
            EchoExecutor(self.context.slots, self.admission.on_started, self.completion.on_finished, self._is_wrong),
        )

    def _service_table(self) -> list[Service]:
        return [service for service in super()._service_table() if service.name not in LEFT_OUT]

    # --- what it logs -------------------------------------------------------------------------------
    def _build_work(self) -> None:
        super()._build_work()
        self.placement_plan.on_change = self._on_plan

    async def _build(self) -> None:
        await super()._build()
        # The registry reports only changes from now on, so `up` begins with what was just judged. With any other
        # beginning (all nodes with a record, say) the difference would never be reported.
        self.registry.judge()
        self.registry.listen(self._on_change)
        self.up = {node for node, state in self.registry.judged().items() if state == UP}

    def _on_delivery(self, message: Message, stream_seq: int, delivered: int) -> None:
        super()._on_delivery(message, stream_seq, delivered)
        self.on_changed()

    async def _publish_record(self) -> int:
        self.recorded_at = self.recorded_at or time.monotonic()
        return await super()._publish_record()

    def _on_change(self, node: str, before: str, after: str) -> None:
        if after == UP:
            self.up.add(node)
        else:
            self.up.discard(node)
        if after == GONE:
            self.gone_at.setdefault(node, time.monotonic())
        elif after == SUSPECT:
            self.suspected[node] = self.suspected.get(node, 0) + 1
        self.on_changed()

    def _on_plan(self) -> None:
        now, ranked = time.monotonic(), self.placement_plan.plan.ranks.get("echo", {})
        for node in self.ranked_at.keys() - ranked.keys():
            del self.ranked_at[node]
            self.unranked_at[node] = now
        for node in ranked.keys() - self.ranked_at.keys():
            self.ranked_at[node] = now
        self.on_changed()
