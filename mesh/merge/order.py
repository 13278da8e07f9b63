"""The order to merge a mesh into another one: KV `mesh`, key `merge`, of the mesh that is merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mesh import decoding, subjects
from mesh.bus.errors import KeyExists, WrongSequence
from mesh.coordination import MergeOrder
from mesh.decoding import readable
from mesh.errors import BusUnavailable
from mesh.messages import encode

if TYPE_CHECKING:
    from mesh.bus.client import Bus


async def read_order(bus: Bus) -> MergeOrder | None:
    """The order of this mesh; None while it has none. Raises: BusUnavailable."""
    return readable(decoding.merge, await bus.kv(subjects.KV_MESH).get(subjects.MERGE_KEY))


async def give_order(bus: Bus, order: MergeOrder) -> None:
    """Order this mesh into another one. Raises: KeyExists when it has an order already, BusUnavailable."""
    kv = bus.kv(subjects.KV_MESH)
    try:
        await kv.create(subjects.MERGE_KEY, encode(order))
    except KeyExists:
        entry = await kv.get(subjects.MERGE_KEY)
        if entry is None or readable(decoding.merge, entry) is not None:
            raise
        try:  # what can't be read is no order
            await kv.update(subjects.MERGE_KEY, encode(order), last=entry.revision)
        except WrongSequence:
            raise KeyExists("this mesh has just got another order to merge") from None


async def update_order(bus: Bus, **changes: Any) -> MergeOrder:
    """The order with these fields changed. Raises: BusUnavailable, also when there is no order."""
    order = await read_order(bus)
    if order is None:
        raise BusUnavailable("this mesh has no order to merge")
    after = msgspec.structs.replace(order, **changes)
    await bus.kv(subjects.KV_MESH).put(subjects.MERGE_KEY, encode(after))
    return after
