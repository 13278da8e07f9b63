"""What the master clears away: lanes nobody used for long, blobs no task names any more, checkpoints of the ended."""

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

#: Lane -> (its deliveries so far, since when that number stands, monotonic)
Memory = Mapping[Lane, tuple[int, float]]


def idle_lanes(lanes: Mapping[Lane, LaneInfo], memory: Memory, now: float, idle_s: float) -> tuple[list[Lane], Memory]:
    """The lanes that may go: empty, nothing in flight, and without a delivery for `idle_s`. Pure."""
    after: dict[Lane, tuple[int, float]] = {}
    for lane, info in lanes.items():
        before = memory.get(lane)
        moved = before is None or before[0] != info.delivered or info.waiting or info.unacknowledged
        after[lane] = (info.delivered, now) if moved or before is None else before
    return [lane for lane, (_, since) in after.items() if now - since >= idle_s], after


class GarbageCollector:
    """Services of the master."""

    def __init__(
        self, bus: Bus, fence: Callable[[], int], config: MeshConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bus, self._fence, self._config, self._clock = bus, fence, config, clock

    async def lanes(self, fence: int) -> None:
        """Remove idle lanes: each one is a Raft group. A submitter makes its lane anew when it comes back."""
        memory: Memory = {}
        while True:
            lanes = await streams.list_lanes(self._bus)
            idle, memory = idle_lanes(lanes, memory, self._clock(), self._config.lane_idle_s)
            for lane in idle:
                if self._fence() == fence:
                    await streams.remove_lane(self._bus, *lane)
                    log.debug("lane %s was idle and is removed", lane)
            await asyncio.sleep(min(EVERY_S, self._config.lane_idle_s / 4))

    async def blobs(self, fence: int) -> None:
        """Remove blobs whose tasks have all ended."""
        while True:
            await asyncio.sleep(EVERY_S)
            if self._fence() == fence:
                await blob_refs.sweep(self._bus)
                # A task's own node removes its checkpoint; this is for those it could not.
                await checkpoints.sweep(self._bus)
