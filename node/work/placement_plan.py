"""The leader's placement plan, as this node has last read it: the rank of this node for each kind."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mesh import decoding, subjects
from mesh.bus.client import Bus
from mesh.coordination import Plan
from mesh.decoding import Unreadable

log = logging.getLogger(__name__)


class PlacementPlan:
    """Follows the plan in KV."""

    def __init__(self, bus: Bus, node: str) -> None:
        self._bus, self._node = bus, node
        self.plan = Plan(fence=0)
        self.on_change: Callable[[], None] = lambda: None
        """Called when `plan` has been replaced."""

    async def start(self) -> None:
        """Read the plan, and follow its changes. Raises: BusUnavailable."""
        # A change brings the new value, and of two plans the newer one is known: nothing has to be read again.
        await self._bus.kv(subjects.KV_PLAN).watch_writes(lambda _, value: self._take(value))
        await self.read()

    async def read(self) -> None:
        """Read the plan again, as after a lost connection. Raises: BusUnavailable."""
        entry = await self._bus.kv(subjects.KV_PLAN).get(subjects.PLAN_KEY)
        if entry is not None:
            self._take(entry.value)

    def rank(self, kind: str) -> int:
        """The rank of this node for `kind`: 0 is the fastest group of nodes."""
        return self.plan.ranks.get(kind, {}).get(self._node, 0)

    def _take(self, value: bytes) -> None:
        plan = decoding.plan(value)
        if isinstance(plan, Unreadable):
            log.warning("a placement plan can't be read and is ignored: it %s", plan.reason)
            return
        if (plan.fence, plan.number) >= (self.plan.fence, self.plan.number):
            self.plan = plan
            self.on_change()
