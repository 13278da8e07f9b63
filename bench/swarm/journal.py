"""The mesh's journal and placement plans during a measurement, as a client hears them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

import msgspec

from mesh import subjects
from mesh.bus.client import Bus, Message
from mesh.coordination import MeshEvent, Plan
from mesh.leader import journal


class Journal:
    """`await start()` begins. Times are of the monotonic clock, as those of the swarm's processes."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._offset_s = time.monotonic() - time.time()
        self._changed = asyncio.Event()
        self.leaders: list[str] = []
        """Nodes that were elected since the start, in order."""
        self.joined: dict[str, float] = {}
        """node -> when the leader journaled that it joined"""
        self.gone: dict[str, float] = {}
        """node -> when the leader first journaled that it is gone, since `forget`"""
        self.plans: list[tuple[float, frozenset[str]]] = []
        """(when it was made, the nodes with a rank for echo) of each plan since `forget`"""

    async def start(self) -> None:
        """Subscribe to the journal and the plans. Raises: BusUnavailable."""
        await self._bus.subscribe(subjects.EVENTS_SUBJECTS[0], self._on_event)
        # The values themselves: a notice arrives before the bus has stored the plan, and reading then is too early.
        await self._bus.kv(subjects.KV_PLAN).watch_writes(lambda _, value: self._on_plan(value))

    def forget(self) -> None:
        """Clear what was recorded, except the last plan."""
        self.gone.clear()
        del self.plans[:-1]

    async def until_joined(self, nodes: Collection[str], within_s: float) -> float:
        """When the leader journaled the last join of `nodes`; -1 when it did not within that time."""
        if not await self._until(lambda: set(nodes) <= self.joined.keys(), within_s):
            return -1.0
        return max(self.joined[node] for node in nodes)

    async def until_gone(self, nodes: Collection[str], within_s: float) -> int:
        """Wait until the leader has journaled that all of `nodes` are gone; returns how many it missed."""
        await self._until(lambda: set(nodes) <= self.gone.keys(), within_s)
        return len(set(nodes) - self.gone.keys())

    async def until_planned(self, present: Collection[str], absent: Collection[str], within_s: float) -> float:
        """When the first plan with all of `present` and none of `absent` was made; -1 when none was in time."""

        def found() -> float | None:
            return next((at for at, nodes in self.plans if nodes.issuperset(present) and not nodes & set(absent)), None)

        return float(found() or -1.0) if await self._until(lambda: found() is not None, within_s) else -1.0

    async def _until(self, condition: Callable[[], bool], within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _on_event(self, message: Message) -> None:
        event: MeshEvent = msgspec.msgpack.decode(message.data, type=MeshEvent)
        at = event.at + self._offset_s
        if event.type == journal.LEADER_ELECTED:
            self.leaders.append(event.node)
        elif event.type in (journal.NODE_JOINED, journal.NODE_BACK):
            self.joined.setdefault(event.node, at)
        elif event.type == journal.NODE_GONE:
            self.gone.setdefault(event.node, at)
        self._changed.set()

    def _on_plan(self, value: bytes) -> None:
        plan: Plan = msgspec.msgpack.decode(value, type=Plan)
        self.plans.append((plan.made_at + self._offset_s, frozenset(plan.ranks.get("echo", {}))))
        self._changed.set()
