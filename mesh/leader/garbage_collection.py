"""Garbage collection by the leader: idle lanes and their requirements, blobs that no task names, old checkpoints."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus import streams
from mesh.bus.streams import LaneInfo
from mesh.config import MeshConfig
from mesh.lanes import Lane, is_open
from mesh.limits import alarm_at
from mesh.tasks import blob_refs, checkpoints

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)
EVERY_S = 30.0
#: While many lanes are open, those for work with requirements are removed after this time without work, seconds.
CROWDED_IDLE_S = 30.0
#: For this long a removed lane is checked for a task that arrived during its removal, seconds.
WATCHED_S = 60.0
#: The record of a pool is removed after this time without a lane, seconds: until then submitters that declare its lane
#: again may rely on the record.
POOL_KEPT_S = 600.0

#: Lane -> (its deliveries so far, the monotonic time since when that number is unchanged)
Memory = Mapping[Lane, tuple[int, float]]


def idle_lanes(
    lanes: Mapping[Lane, LaneInfo], memory: Memory, now: float, idle_s: float, crowded: bool = False
) -> tuple[list[Lane], Memory]:
    """(the lanes that are empty, with nothing in flight, and without a delivery for `idle_s`; the new memory). Pure.

    While it is `crowded`, lanes for work with requirements are idle after CROWDED_IDLE_S.
    """
    after: dict[Lane, tuple[int, float]] = {}
    for lane, info in lanes.items():
        before = memory.get(lane)
        unchanged = before is not None and before[0] == info.delivered
        idle = unchanged and not info.waiting and not info.unacknowledged
        after[lane] = before if idle and before is not None else (info.delivered, now)
    limits_s = {lane: min(idle_s, CROWDED_IDLE_S) if crowded and not is_open(lane[1]) else idle_s for lane in after}
    return [lane for lane, (_, since) in after.items() if now - since >= limits_s[lane]], after


def unused_pools(
    pools: Iterable[str], lanes: Iterable[Lane], memory: Mapping[str, float], now: float
) -> tuple[list[str], Mapping[str, float]]:
    """(the pools that have had no lane for POOL_KEPT_S; pool -> since when it has none). Pure."""
    used = {pool for _, pool, _ in lanes}
    since = {pool: memory.get(pool, now) for pool in pools if pool not in used}
    return [pool for pool, at in since.items() if now - at >= POOL_KEPT_S], since


class GarbageCollector:
    """Leader services; each runs until it is cancelled and acts only while its fence is current."""

    def __init__(
        self, bus: Bus, fence: Callable[[], int], config: MeshConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bus, self._fence, self._config, self._clock = bus, fence, config, clock

    async def lanes(self, fence: int) -> None:
        """Remove idle lanes, because each is a Raft group. Submitters declare a lane again when they need it."""
        memory: Memory = {}
        removed: dict[Lane, float] = {}
        idle_s = self._config.lane_idle_s
        while True:
            lanes, now = await streams.list_lanes(self._bus), self._clock()
            limit = self._config.limits.lanes
            crowded = sum(not is_open(pool) for _, pool, _ in lanes) >= alarm_at(limit)
            idle, memory = idle_lanes(lanes, memory, now, idle_s, crowded)
            for lane in idle:
                if self._fence() == fence:
                    await streams.remove_lane(self._bus, *lane)
                    removed[lane] = now
                    log.debug("removed idle lane %s", lane)
            removed = await self._restored(removed, now)
            await asyncio.sleep(min(EVERY_S, (min(idle_s, CROWDED_IDLE_S) if crowded else idle_s) / 4))

    async def _restored(self, removed: Mapping[Lane, float], now: float) -> dict[Lane, float]:
        """Declare lanes again that got a task while they were removed; returns those to check again later."""
        watched: dict[Lane, float] = {}
        for lane, at in removed.items():
            if await self._bus.read_last(subjects.WORK, subjects.lane_filter(*lane)) is not None:
                await streams.declare_lane(self._bus, *lane)
                self._bus.send(subjects.wake(*lane), b"")
            elif now - at < WATCHED_S:
                watched[lane] = at
        return watched

    async def pools(self, fence: int) -> None:
        """Remove the records of requirements for which there is no lane any more."""
        since: Mapping[str, float] = {}
        kv = self._bus.kv(subjects.KV_POOLS)
        while True:
            await asyncio.sleep(POOL_KEPT_S / 4)
            pools = [entry.key for entry in await kv.entries()]
            unused, since = unused_pools(pools, await streams.list_lanes(self._bus), since, self._clock())
            for pool in unused:
                if self._fence() == fence:
                    await kv.delete(pool)

    async def blobs(self, fence: int) -> None:
        """Delete blobs and checkpoints whose tasks have ended."""
        while True:
            await asyncio.sleep(EVERY_S)
            if self._fence() == fence:
                await blob_refs.sweep(self._bus)
                # A node deletes the checkpoint of its own task; this finds those that it could not delete.
                await checkpoints.sweep(self._bus)
