"""Whose turn it is to restart a bus server: one at a time, or the bus could lose its majority."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus.errors import KeyExists

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: A turn lasts this long, seconds: a restart, and the time the copies need to catch up.
TURN_S = 60


async def take_turn(bus: Bus, node: str) -> bool:
    """Whether the bus server of `node` may be restarted now; no other one may for TURN_S. Raises: BusUnavailable."""
    try:
        await bus.kv(subjects.KV_MESH).create(subjects.RESTART_KEY, node.encode(), ttl_s=TURN_S)
    except KeyExists:
        return False
    return True
