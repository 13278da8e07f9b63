"""The order to merge a mesh into another one: KV `mesh`, key `merge`, of the mesh that is merged.

It counts only with the acceptance of the same token in the other mesh: see `mesh/merge/confirmation.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mesh import decoding, subjects
from mesh.bus.errors import KeyExists, NoRoom, WrongSequence
from mesh.coordination import MergeAcceptance, MergeOrder
from mesh.decoding import readable
from mesh.errors import BusUnavailable
from mesh.messages import CLAIM_CHECK_BYTES, encode

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: The limit of the queue of a mesh that is being merged, bytes: no task fits.
CLOSED = 1
#: The limits of a queue that an order may restore, bytes: at least one task fits, and no disk is larger.
LEAST_LIMIT, MOST_LIMIT = CLAIM_CHECK_BYTES, 1 << 50


async def read_order(bus: Bus) -> MergeOrder | None:
    """The order of this mesh; None while it has none. Raises: BusUnavailable."""
    return readable(decoding.merge, await bus.kv(subjects.KV_MESH).get(subjects.MERGE_KEY))


async def give_order(source: Bus, source_id: str, target: Bus, order: MergeOrder) -> None:
    """Order the mesh `source_id` into another one: the acceptance first, then the order.

    Raises: KeyExists when it has an order already, BusUnavailable.
    """
    if await read_order(source) is not None:
        raise KeyExists("this mesh has an order to merge already")
    await accept(target, source_id, order)
    try:
        await _create(source, order)
    except KeyExists:
        # Another order was given at the same moment: its acceptance, which this one has replaced, is written again.
        if (given := await read_order(source)) is not None and given.into == order.into:
            await accept(target, source_id, given)
        raise


async def accept(target: Bus, source_id: str, order: MergeOrder) -> None:
    """Write, in the mesh on `target`, that it takes the mesh `source_id` in by that order. Raises: BusUnavailable."""
    acceptance = MergeAcceptance(source=source_id, token=order.token, by=order.by, phase=order.phase)
    await target.kv(subjects.KV_MESH).put(subjects.acceptance_key(source_id), encode(acceptance))


async def _create(source: Bus, order: MergeOrder) -> None:
    kv = source.kv(subjects.KV_MESH)
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
    """The order with these fields changed. Raises: BusUnavailable, also when there is no order any more."""
    kv = bus.kv(subjects.KV_MESH)
    entry = await kv.get(subjects.MERGE_KEY)
    order = readable(decoding.merge, entry)
    if entry is None or order is None:
        raise BusUnavailable("this mesh has no order to merge")
    after = msgspec.structs.replace(order, **changes)
    try:
        await kv.update(subjects.MERGE_KEY, encode(after), last=entry.revision)
    except WrongSequence:
        raise BusUnavailable("the order to merge was changed at the same moment") from None
    return after


async def withdraw(bus: Bus) -> MergeOrder | None:
    """Undo the order of this mesh: it takes work again, and its nodes stay. What has been moved stays moved.

    Returns the order that was withdrawn; None when there is none. Raises: BusUnavailable, ApiError.
    """
    kv = bus.kv(subjects.KV_MESH)
    entry = await kv.get(subjects.MERGE_KEY)
    order = readable(decoding.merge, entry)
    if entry is None or order is None:
        return None
    # Before the order is deleted: a crash between the two would leave the mesh closed for ever.
    await _open(bus, order)
    try:
        await kv.delete(subjects.MERGE_KEY, last=entry.revision)
    except WrongSequence:
        raise BusUnavailable("the order to merge was changed at the same moment; try again") from None
    await _open(bus, order)  # a mover that had read the order may have closed it again
    return order


async def _open(bus: Bus, order: MergeOrder) -> None:
    """Open what a merge has closed for new work.

    What the order says is used only for that, and only if it leaves room for work.
    """
    if (await bus.stream_info(subjects.WORK)).config.get("max_bytes") == CLOSED:
        await _open_queue(bus, limit_after(order.work_max_bytes, bus.config.work_max_bytes))
    if list((await bus.stream_info(subjects.LATER)).config["subjects"]) == [subjects.LATER_CLOSED]:
        await bus.update_stream(subjects.LATER, subjects=list(subjects.LATER_SUBJECTS))


async def _open_queue(bus: Bus, limit: int) -> None:
    """Give the queue that limit, or as much of it as the store has room for. Raises: BusUnavailable, ApiError."""
    while True:
        try:
            return await bus.update_stream(subjects.WORK, max_bytes=limit)
        except NoRoom:
            if limit // 2 < LEAST_LIMIT:
                raise
            limit //= 2


def limit_after(recorded: int, default: int) -> int:
    """The limit of the queue after a merge is undone, bytes; -1: none. `recorded`: that in the order. Pure."""
    return recorded if recorded == -1 or LEAST_LIMIT <= recorded <= MOST_LIMIT else default
