"""References from tasks to blobs: a blob is deleted after the last task that names it.

KV `blobrefs` has the key `<blob>.named` once a task has named the blob, and `<blob>.<task>` until a grace period after
that task ends. The leader deletes blobs that have the first key and none of the second. A blob that no task ever named
expires with its bucket; one uploaded with `keep` is never deleted here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.errors import BusUnavailable, Conflict, NotFound, QueztlError

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)
#: A blob is kept this long after its last task ends, seconds: people upload once and submit again.
GRACE_S = 600
_NAMED = "named"
#: The value of a reference while its task has not ended.
_NEEDED = b"1"


def orphans(keys: Iterable[str]) -> set[str]:
    """The blobs that were named once and that no task names now. Pure."""
    named: set[str] = set()
    in_use: set[str] = set()
    for key in keys:
        blob, _, referrer = key.partition(".")
        if not subjects.is_token(blob):
            continue  # no blob has such an id
        (named if referrer == _NAMED else in_use).add(blob)
    return {blob for blob in named - in_use if not blob.startswith("b-k")}


async def add(bus: Bus, blobs: Iterable[str], task: str) -> None:
    """Record that `task` needs these blobs. Raises: BusUnavailable."""
    bucket = bus.kv(subjects.KV_BLOB_REFS)
    for blob in blobs:
        await bucket.put(f"{blob}.{task}", _NEEDED)
        await bucket.put(f"{blob}.{_NAMED}", _NEEDED)


async def release(bus: Bus, blobs: Iterable[str], task: str) -> None:
    """Record that `task` has ended: the blobs are deleted after the grace period, unless other tasks name them."""
    bucket = bus.kv(subjects.KV_BLOB_REFS)
    for blob in blobs:
        try:
            await bucket.put(f"{blob}.{task}", b"0", ttl_s=GRACE_S)
        except QueztlError as error:
            log.debug("could not release blob %s, it stays until it expires: %s", blob, error)


async def delete_unused(bus: Bus, blob: str) -> None:
    """Delete a blob that no task needs. Raises: Conflict when one does that has not ended; BusUnavailable."""
    bucket = bus.kv(subjects.KV_BLOB_REFS)
    entries = await bucket.entries(f"{blob}.*")
    waiting = [entry.key.partition(".")[2] for entry in entries if entry.value == _NEEDED]
    waiting = [task for task in waiting if task != _NAMED]
    if waiting:
        more = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        raise Conflict(f"the task {waiting[0]}{more} needs the blob {blob}; cancel it first, or wait for its end")
    await bus.objects.delete(blob)
    for entry in entries:
        await bucket.delete(entry.key)
    try:
        await bus.objects.info(blob)
    except NotFound:
        return
    raise BusUnavailable(f"the bus could not delete blob {blob}; try again shortly")


async def sweep(bus: Bus) -> int:
    """Delete the blobs that no task names any more; returns how many. Raises: BusUnavailable."""
    bucket = bus.kv(subjects.KV_BLOB_REFS)
    unused = orphans(await bucket.keys())
    for blob in unused:
        await bus.objects.delete(blob)
        await bucket.delete(f"{blob}.{_NAMED}")
    return len(unused)
