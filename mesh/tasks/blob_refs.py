"""Which tasks name which blobs, so that a blob goes with the last task that names it.

KV `blobrefs`: `<blob>.named` once any task named it, `<blob>.<task>` while that task has not ended and for a
grace after. A blob that was named, and that no such key names any more, is swept by the master. One never named
goes with its bucket's lifetime; one uploaded with `keep` is never swept.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.errors import QueztlError

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)
#: After its last task ended a blob stays this long: people upload once and submit again.
GRACE_S = 600
_NAMED = "named"


def orphans(keys: Iterable[str]) -> set[str]:
    """The blobs that were named once and are named by no task now. Pure."""
    named, in_use = set(), set()
    for key in keys:
        blob, _, what = key.partition(".")
        (named if what == _NAMED else in_use).add(blob)
    return {blob for blob in named - in_use if not blob.startswith("b-k")}


async def name(bus: Bus, blobs: Iterable[str], task: str) -> None:
    """`task` needs these blobs. Raises: BusUnavailable."""
    bucket = bus.kv(subjects.KV_BLOB_REFS)
    for blob in blobs:
        await bucket.put(f"{blob}.{task}", b"1")
        await bucket.put(f"{blob}.{_NAMED}", b"1")


async def release(bus: Bus, blobs: Iterable[str], task: str) -> None:
    """`task` has ended; the blobs may go after the grace, unless other tasks name them."""
    bucket = bus.kv(subjects.KV_BLOB_REFS)
    for blob in blobs:
        try:
            await bucket.put(f"{blob}.{task}", b"0", ttl_s=GRACE_S)
        except QueztlError as error:
            log.debug("blob %s stays until its lifetime is over: %s", blob, error)


async def sweep(bus: Bus) -> int:
    """Remove what no task names any more; returns how many. Raises: BusUnavailable."""
    bucket = bus.kv(subjects.KV_BLOB_REFS)
    gone = orphans(await bucket.keys())
    for blob in gone:
        await bus.objects.delete(blob)
        await bucket.delete(f"{blob}.{_NAMED}")
    return len(gone)
