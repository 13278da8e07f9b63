"""Garbage collection by the leader: idle lanes, blobs that no task names, checkpoints of tasks that have ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mesh.bus import streams
from mesh.bus.streams import LaneInfo
from mesh.config import MeshConfig
from mesh.lanes import Lane
from mesh.tasks import blob_refs, checkpoints

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)
EVERY_S = 30.0

#: Lane -> (its deliveries so far, the monotonic time since when that number is unchanged)
Memory = Mapping[Lane, tuple[int, float]]


def idle_lanes(lanes: Mapping[Lane, LaneInfo], memory: Memory, now: float, idle_s: float) -> tuple[list[Lane], Memory]:
    """(the lanes that are empty, with nothing in flight, and without a delivery for `idle_s`; the new memory). Pure."""
    after: dict[Lane, tuple[int, float]] = {}
    for lane, info in lanes.items():
        before = memory.get(lane)
        unchanged = before is not None and before[0] == info.delivered
        idle = unchanged and not info.waiting and not info.unacknowledged
        after[lane] = before if idle and before is not None else (info.delivered, now)
    return [lane for lane, (_, since) in after.items() if now - since >= idle_s], after


class GarbageCollector:
    """Leader services; each runs until it is cancelled and acts only while its fence is current."""

    def __init__(
        self, bus: Bus, fence: Callable[[], int], config: MeshConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bus, self._fence, self._config, self._clock = bus, fence, config, clock

    async def lanes(self, fence: int) -> None:
        """Remove idle lanes, because each is a Raft group. Submitters declare a lane again when they need it."""
        memory: Memory = {}
        while True:
            lanes = await streams.list_lanes(self._bus)
            idle, memory = idle_lanes(lanes, memory, self._clock(), self._config.lane_idle_s)
            for lane in idle:
                if self._fence() == fence:
                    await streams.remove_lane(self._bus, *lane)
                    log.debug("removed idle lane %s", lane)
            await asyncio.sleep(min(EVERY_S, self._config.lane_idle_s / 4))

    async def blobs(self, fence: int) -> None:
        """Delete blobs and checkpoints whose tasks have ended."""
        while True:
            await asyncio.sleep(EVERY_S)
            if self._fence() == fence:
                await blob_refs.sweep(self._bus)
                # A node deletes the checkpoint of its own task; this finds those that it could not delete.
                await checkpoints.sweep(self._bus)
