"""A member of the mesh as an observer sees it, and the states a member can be in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.messages import Heartbeat, NodeRecord

UP, SUSPECT, GONE = "up", "suspect", "gone"
DRAINING, LEFT, REGISTERED = "draining", "left", "registered"
#: The states in which a node may still run tasks.
ALIVE = frozenset({UP, SUSPECT, DRAINING})


@dataclass(frozen=True)
class Member:
    """One node: its record, its state, its last heartbeat (None while none was heard)."""

    record: NodeRecord
    state: str = UP
    heartbeat: Heartbeat | None = None

    @property
    def rates(self) -> Mapping[str, tuple[float, int]]:
        """kind -> (mean run time in seconds, number of tasks)"""
        return self.heartbeat.rates if self.heartbeat else {}

    @property
    def free_slots(self) -> int:
        """Slots that no task uses or waits for; 0 while nothing was heard."""
        heard = self.heartbeat
        return max(0, self.record.slots - heard.cores_used - heard.queued) if heard is not None else 0

    @property
    def is_busy(self) -> bool:
        """Whether it has no free slot right now."""
        return self.heartbeat is not None and self.heartbeat.running + self.heartbeat.queued >= self.record.slots
