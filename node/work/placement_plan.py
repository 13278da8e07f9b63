"""The leader's placement plan, as this node has last read it: the rank of this node for each kind.

A change brings the new plan, and the fence orders plans, so that nothing has to be read again. Anybody can send a plan
that is not in the bucket, and one number that is too high would shut out all later ones. So a plan whose fence no
leader has is ignored, and one that comes in the wrong order makes the node read the bucket, whose revisions count.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mesh import decoding, subjects
from mesh.bus.client import Bus
from mesh.coordination import Plan
from mesh.decoding import readable
from mesh.errors import QueztlError

log = logging.getLogger(__name__)

#: After a plan in the wrong order the bucket is read, this often at most, seconds.
READ_AGAIN_S = 1.0


class PlacementPlan:
    """Follows the plan in KV."""

    def __init__(self, bus: Bus, node: str) -> None:
        self._bus, self._node = bus, node
        self.plan = Plan(fence=0)
        self._revision = 0
        """The revision of the last plan that was read from the bucket."""
        self._reading: asyncio.Task[None] | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called when `plan` has been replaced."""

    async def start(self) -> None:
        """Read the plan, and follow its changes. Raises: BusUnavailable."""
        await self._bus.kv(subjects.KV_PLAN).watch_writes(self._on_write)
        await self.read()

    async def read(self) -> None:
        """Read the plan again, as after a lost connection. Raises: BusUnavailable."""
        entry = await self._bus.kv(subjects.KV_PLAN).get(subjects.PLAN_KEY)
        plan = readable(decoding.plan, entry)
        if plan is None or entry is None or entry.revision < self._revision:
            return
        self._revision = entry.revision
        if not await self._bus.revisions(subjects.KV_LEASE).check(plan.fence):
            log.warning("the placement plan in the bucket is ignored: no leader has its fence, %d", plan.fence)
            return
        self._replace(plan)

    def rank(self, kind: str) -> int:
        """The rank of this node for `kind`: 0 is the fastest group of nodes."""
        return self.plan.ranks.get(kind, {}).get(self._node, 0)

    def _on_write(self, key: str, value: bytes) -> None:
        plan = decoding.plan(value)
        if key != subjects.PLAN_KEY:
            return
        if isinstance(plan, decoding.Unreadable):
            log.warning("a placement plan can't be read and is ignored: it %s", plan.reason)
            return
        is_next = (plan.fence, plan.number) >= (self.plan.fence, self.plan.number)
        if is_next and self._bus.revisions(subjects.KV_LEASE).has_given(plan.fence):
            self._replace(plan)
        elif self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read_soon(), name="read the plan")

    async def _read_soon(self) -> None:
        await asyncio.sleep(READ_AGAIN_S)  # a notice comes before its record can be read
        try:
            await self.read()
        except QueztlError as error:
            log.debug("could not read the placement plan: %s", error.message)

    def _replace(self, plan: Plan) -> None:
        if plan != self.plan:
            self.plan = plan
            self.on_change()
