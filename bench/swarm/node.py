"""A node of a swarm: the real one (`node/daemon.py`) without what a machine has only one of.

It joins, beats, elects, pulls, settles, watches and answers with the very parts of a node; it has no REST bridge, no
mDNS and no worker processes, and shares what was probed of the machine with the others in its process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from bench.swarm.standin import StandIn
from mesh.bus.client import Message
from mesh.discovery.announcement import Announcement
from mesh.discovery.identity import DataDir
from mesh.discovery.mdns import Discovery
from mesh.membership.member import GONE, SUSPECT, UP
from mesh.messages import Capabilities
from mesh.supervision import Service
from node.config import NodeConfig
from node.daemon import Node
from node.executor.executor import Executor
from node.wiring.api import AnsweringParts, Bridge

#: What a swarm node does not run: its machine is the swarm's, and measured by nobody.
LEFT_OUT = ("network watcher", "calibrator")


class NoBridge:
    """Where the bridge stands: no API."""

    url = ""

    def attach(self, parts: AnsweringParts) -> None:
        """Nothing to serve."""

    async def close(self) -> None:
        """Nothing to close."""


class NoDiscovery:
    """Where mDNS stands: a swarm node is told where its bus is."""

    trouble = ""

    async def announce(self, announcement: Announcement) -> None:
        """Said to nobody."""

    def peers(self) -> tuple[Announcement, ...]:
        """Nobody is heard."""
        return ()

    async def stop(self) -> None:
        """Nothing runs."""


class SwarmNode(Node):
    """One node of a swarm, with a log of what its registry and its plan said. Times: this machine's monotonic clock."""

    def __init__(self, config: NodeConfig, probed: Capabilities, is_wrong: Callable[[], bool]) -> None:
        """`is_wrong`: asked at each task whether its result is to be spoilt (to prove that the bench finds it)."""
        super().__init__(config)
        self._probed, self._is_wrong = probed, is_wrong
        self.up: set[str] = set()
        """Who is up, as its registry tells."""
        self.gone_at: dict[str, float] = {}
        """Node -> when this one first held it for gone, since `forget`."""
        self.suspected: dict[str, int] = {}
        """Node -> how often it was suspected, since `forget`."""
        self.ranked_at: dict[str, float] = {}
        """Node of the plan as last read -> when it came into it."""
        self.unranked_at: dict[str, float] = {}
        """Node -> when it was gone from the plan, since `forget`."""
        self.recorded_at = 0.0
        """When its first record was on its way to the bus."""
        self.on_news: Callable[[], None] = lambda: None
        """Called when who is up, or the plan, has changed."""

    def forget(self) -> None:
        """Begin a new log."""
        self.gone_at, self.suspected, self.unranked_at = {}, {}, {}

    # --- what it has not ----------------------------------------------------------------------------
    async def _open_bridge(self, addresses: tuple[str, ...]) -> Bridge:
        return cast(Bridge, NoBridge())

    async def _open_discovery(self, addresses: tuple[str, ...]) -> Discovery:
        return cast(Discovery, NoDiscovery())

    async def _probe(self, data: DataDir) -> Capabilities:
        return self._probed

    def _make_executor(self) -> Executor:
        return cast(
            Executor,
            StandIn(self.context.slots, self.admission.on_started, self.completion.on_finished, self._is_wrong),
        )

    def _service_table(self) -> list[Service]:
        return [service for service in super()._service_table() if service.name not in LEFT_OUT]

    # --- what it writes down ------------------------------------------------------------------------
    def _build_work(self) -> None:
        super()._build_work()
        self.placement_plan.on_change = self._on_plan

    async def _build(self) -> None:
        await super()._build()
        # What it tells from now on is what changes from here: begun with anything else than what was judged (those with
        # a record, say), it would never be told of the difference.
        self.registry.judge()
        self.registry.listen(self._on_change)
        self.up = {node for node, state in self.registry.judged().items() if state == UP}

    def _on_delivery(self, message: Message, stream_seq: int, delivered: int) -> None:
        super()._on_delivery(message, stream_seq, delivered)
        self.on_news()

    async def _publish_record(self) -> None:
        self.recorded_at = self.recorded_at or time.monotonic()
        await super()._publish_record()

    def _on_change(self, node: str, before: str, after: str) -> None:
        if after == UP:
            self.up.add(node)
        else:
            self.up.discard(node)
        if after == GONE:
            self.gone_at.setdefault(node, time.monotonic())
        elif after == SUSPECT:
            self.suspected[node] = self.suspected.get(node, 0) + 1
        self.on_news()

    def _on_plan(self) -> None:
        now, ranked = time.monotonic(), self.placement_plan.plan.ranks.get("echo", {})
        for node in self.ranked_at.keys() - ranked.keys():
            del self.ranked_at[node]
            self.unranked_at[node] = now
        for node in ranked.keys() - self.ranked_at.keys():
            self.ranked_at[node] = now
        self.on_news()
