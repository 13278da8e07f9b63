"""Whose turn it is to restart a bus server: one at a time, or the bus could lose its majority."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus.errors import KeyExists, WrongSequence

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: A turn lasts this long, seconds: a restart, and the time the copies need to catch up.
TURN_S = 60


async def turn_of(bus: Bus, node: str) -> int:
    """The revision of the turn that `node` has; 0 when it is not its turn. Raises: BusUnavailable."""
    entry = await bus.kv(subjects.KV_MESH).get(subjects.RESTART_KEY)
    return entry.revision if entry is not None and entry.value == node.encode() else 0


async def take_turn(bus: Bus, node: str) -> bool:
    """Whether the bus server of `node` may be restarted now; no other one may for TURN_S. Raises: BusUnavailable."""
    kv = bus.kv(subjects.KV_MESH)
    try:
        await kv.create(subjects.RESTART_KEY, node.encode(), ttl_s=TURN_S)
    except KeyExists:
        entry = await kv.get(subjects.RESTART_KEY)
        now = await bus.clock(f"KV_{subjects.KV_MESH}").earliest()
        if entry is None or now - entry.stored_at <= TURN_S:
            return False
        # A turn expires by itself; one that does not was written by somebody else.
        try:
            await kv.update(subjects.RESTART_KEY, node.encode(), last=entry.revision, ttl_s=TURN_S)
        except WrongSequence:
            return False
    return True
