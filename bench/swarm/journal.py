"""What the leader says while a swarm is measured: the mesh's journal and the placement plans, heard from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from mesh import coordination, subjects
from mesh.bus.client import Bus, Message
from mesh.coordination import MeshEvent, Plan
from mesh.leader import journal


class Journal:
    """`await start()`; times it gives are of the monotonic clock, as those of the swarm's processes."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._since = time.monotonic() - time.time()
        self._news = asyncio.Event()
        self.leaders: list[str] = []
        """Nodes that were elected since the start, in order."""
        self.joined: dict[str, float] = {}
        """Node -> when the leader wrote that it had joined."""
        self.gone: dict[str, float] = {}
        """Node -> when the leader first wrote that it was gone, since `forget`."""
        self.plans: list[tuple[float, frozenset[str]]] = []
        """(when it was made, the nodes that have a rank for echo) of each plan that was heard, since `forget`."""

    async def start(self) -> None:
        """Listen. Raises: BusUnavailable."""
        await self._bus.subscribe(subjects.EVENTS_SUBJECTS[0], self._on_event)
        # Heard, not read after a hint: that comes before the bus has stored what it tells of.
        await self._bus.kv(subjects.KV_PLAN).watch_writes(lambda _, value: self._on_plan(value))

    def forget(self) -> None:
        """Begin anew."""
        self.gone, self.plans = {}, self.plans[-1:]

    async def until_joined(self, nodes: Collection[str], within_s: float) -> float:
        """When the leader had written that the last of `nodes` joined; -1 when it did not in time."""
        if not await self._until(lambda: set(nodes) <= self.joined.keys(), within_s):
            return -1.0
        return max(self.joined[node] for node in nodes)

    async def until_gone(self, nodes: Collection[str], within_s: float) -> int:
        """Wait until the leader wrote that all of `nodes` are gone; how many it did not in time."""
        await self._until(lambda: set(nodes) <= self.gone.keys(), within_s)
        return len(set(nodes) - self.gone.keys())

    async def until_planned(self, there: Collection[str], absent: Collection[str], within_s: float) -> float:
        """When the first plan was made with all of `there` and none of `absent`; -1 when none was in time."""

        def found() -> float | None:
            return next((at for at, nodes in self.plans if nodes.issuperset(there) and not nodes & set(absent)), None)

        return float(found() or -1.0) if await self._until(lambda: found() is not None, within_s) else -1.0

    async def _until(self, holds, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _on_event(self, message: Message) -> None:
        event: MeshEvent = coordination.decode_event(message.data)
        at = event.at + self._since
        if event.type == journal.LEADER_ELECTED:
            self.leaders.append(event.node)
        elif event.type in (journal.NODE_JOINED, journal.NODE_BACK):
            self.joined.setdefault(event.node, at)
        elif event.type == journal.NODE_GONE:
            self.gone.setdefault(event.node, at)
        self._news.set()

    def _on_plan(self, value: bytes) -> None:
        plan: Plan = coordination.decode_plan(value)
        self.plans.append((plan.made_at + self._since, frozenset(plan.ranks.get("echo", {}))))
        self._news.set()
