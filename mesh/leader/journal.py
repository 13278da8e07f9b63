"""The journal of the mesh: nodes that join and leave, leadership, reclaimed deliveries, alarms.

Best effort: a failed write to the journal never stops the action that it reports.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from mesh import coordination, messages, subjects
from mesh.errors import QueztlError

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)

LEADER_ELECTED = "leader.elected"
LEADER_LOST = "leader.lost"
NODE_JOINED = "node.joined"
NODE_BACK = "node.back"
NODE_GONE = "node.gone"
NODE_LEFT = "node.left"
NODE_FORGOTTEN = "node.forgotten"
NODE_TWIN = "node.twin"
WORK_RETURNED = "work.returned"
ALARM = "alarm"
OTHER_MESH = "mesh.other"
MERGE_BEGUN = "merge.begun"
MERGE_UNDONE = "merge.undone"


async def emit(bus: Bus, type_: str, detail: dict[str, Any] | None = None, node: str = "", fence: int = 0) -> None:
    """Write one event to stream EVENTS under `mesh.event.<type>`; a failure is only logged."""
    event = coordination.MeshEvent(type=type_, at=time.time(), node=node, fence=fence, detail=detail or {})
    try:
        await bus.store(subjects.event(type_), messages.encode(event))
    except QueztlError as error:
        log.warning("could not write event %s of %s to the journal: %s", type_, node or "the mesh", error.message)


def of_change(before: str, after: str) -> str:
    """The event for a change of a node's state; "" for changes that are not recorded, such as suspicions."""
    if after == "left":
        return NODE_LEFT
    if after == "gone":
        return NODE_GONE
    if before == "gone" and after:
        return NODE_BACK
    return NODE_JOINED if not before and after else ""
