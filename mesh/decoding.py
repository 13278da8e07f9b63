"""Decodes what comes from outside: bus messages, KV records and stream messages. No other module of the mesh does.

A decoder returns the value, or `Unreadable` with the reason; it never raises. What it returns has been checked: ids and
names may be used in subjects, file names and keys. Pure, except that an ignored record is logged.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import msgspec

from mesh.capacity import LeaveOrder
from mesh.coordination import (
    DiskAnswer,
    HostingAnswer,
    HostingRequest,
    IdentityClaim,
    Lease,
    MergeAcceptance,
    MergeOrder,
    MeshEvent,
    MeshRecord,
    Plan,
    Pool,
    ServerRecord,
)
from mesh.decoder import Decoder, Unreadable, readable, readable_of
from mesh.decoding_checks import (
    acceptance_fault,
    end_fault,
    first,
    heartbeat_fault,
    held_fault,
    identity_fault,
    is_token_or_empty,
    merge_fault,
    mesh_fault,
    node_fault,
    outcome_fault,
    plan_fault,
    pool_fault,
    request_fault,
    server_fault,
    task_fault,
    task_options_fault,
)
from mesh.errors import ResultUnreadable
from mesh.messages import (
    Checkpoint,
    Claim,
    DeadLetter,
    Heartbeat,
    HeartbeatDigest,
    HeldSet,
    NodeRecord,
    Task,
    TaskEnd,
    TaskState,
)
from mesh.subjects import URGENCIES, NotAToken, is_task_id, is_token, lane_filter, later_due

__all__ = ["Decoder", "Unreadable", "readable", "readable_of"]

# --- tasks ------------------------------------------------------------------------------------------
task: Decoder[Task] = Decoder(Task, "task", task_fault)
end: Decoder[TaskEnd] = Decoder(TaskEnd, "final record", end_fault)
state: Decoder[TaskState] = Decoder(
    TaskState, "state record", lambda found: first((is_task_id(found.id), "its id is not a task id"))
)
dead_letter: Decoder[DeadLetter] = Decoder(
    DeadLetter, "dead letter", lambda found: task_fault(found.task) or end_fault(found.end)
)
claim: Decoder[Claim] = Decoder(
    Claim,
    "claim of an idempotency key",
    lambda found: first(
        (is_task_id(found.id), "its id is not a task id"), (0.0 <= found.age_s < 1e12, "its age is no time")
    ),
)
checkpoint: Decoder[Checkpoint] = Decoder(
    Checkpoint, "checkpoint", lambda found: first((is_token_or_empty(found.blob), "its blob can't be one"))
)
anything: Decoder[Any] = Decoder(Any, "MessagePack value")


def result(data: bytes | msgspec.Raw) -> Any:
    """The value of a stored result; None when it is empty. Raises: ResultUnreadable."""
    if not len(data):
        return None
    found = anything(data)
    if isinstance(found, Unreadable):
        raise ResultUnreadable(f"The stored result {found.reason}; submit the task again.")
    return found


class BlobFacts(msgspec.Struct, frozen=True):
    """The metadata of an object in a blob store, as far as a merge needs it."""

    nuid: str
    deleted: bool = False


blob_facts: Decoder[BlobFacts] = Decoder(
    BlobFacts, "record of a blob", lambda found: first((is_token(found.nuid), "its chunks have no name")), json=True
)

# --- nodes ------------------------------------------------------------------------------------------
held: Decoder[HeldSet] = Decoder(HeldSet, "set of held deliveries", held_fault)
heartbeat: Decoder[Heartbeat] = Decoder(Heartbeat, "heartbeat", heartbeat_fault)
digest: Decoder[HeartbeatDigest] = Decoder(
    HeartbeatDigest, "heartbeat digest", lambda found: first((is_token(found.leader), "its leader can't be a node"))
)
node: Decoder[NodeRecord] = Decoder(NodeRecord, "node record", node_fault)
leave: Decoder[LeaveOrder] = Decoder(LeaveOrder, "order to leave")

# --- the mesh ---------------------------------------------------------------------------------------
mesh: Decoder[MeshRecord] = Decoder(MeshRecord, "mesh record", mesh_fault)
lease: Decoder[Lease] = Decoder(
    Lease, "lease", lambda found: first((is_token(found.node) and is_token(found.incarnation), "it names no node"))
)
plan: Decoder[Plan] = Decoder(Plan, "placement plan", plan_fault)
pool: Decoder[Pool] = Decoder(Pool, "pool", pool_fault)
server: Decoder[ServerRecord] = Decoder(ServerRecord, "record of a bus server", server_fault)
hosting_request: Decoder[HostingRequest] = Decoder(HostingRequest, "request about a bus server", request_fault)
disk_answer: Decoder[DiskAnswer] = Decoder(
    DiskAnswer,
    "answer about a disk",
    lambda found: first((is_token(found.node) and math.isfinite(found.wrote_ago_s), "it names no node or no time")),
)
hosting_answer: Decoder[HostingAnswer] = Decoder(HostingAnswer, "answer about a bus server")
identity_claim: Decoder[IdentityClaim] = Decoder(IdentityClaim, "claim of an identity", identity_fault)
acceptance: Decoder[MergeAcceptance] = Decoder(MergeAcceptance, "acceptance of a mesh", acceptance_fault)
merge: Decoder[MergeOrder] = Decoder(MergeOrder, "order to merge", merge_fault)
event: Decoder[MeshEvent] = Decoder(MeshEvent, "journal entry")
alarms: Decoder[tuple[str, ...]] = Decoder(tuple[str, ...], "list of alarms")
texts: Decoder[dict[str, str]] = Decoder(dict[str, str], "map of texts")
facts: Decoder[dict[str, Any]] = Decoder(dict[str, Any], "map")


#: Check all fields but the names, which the callers below compare with valid ones: every task passes here, and names
#: are not checked twice.
_task_options: Decoder[Task] = Decoder(Task, "task", task_options_fault)
_outcome: Decoder[TaskEnd] = Decoder(TaskEnd, "final record", outcome_fault)


def lane_task(subject: str, data: bytes) -> Task | Unreadable:
    """The task in a message of a lane. It must be stored under its own subject, by which others find it."""
    found = _task_options(data)
    if isinstance(found, Unreadable):
        return found
    lane, _, last = subject.rpartition(".")
    if found.id == last and is_task_id(last) and _lane(found.kind, found.pool, found.urgency) == lane:
        return found
    fault = task_fault(found)
    return Unreadable(f"is not a valid task: {fault}") if fault else _MISPLACED


def end_of(task_id: str, data: bytes) -> TaskEnd | Unreadable:
    """The final record that is stored for a task, whose id is valid."""
    found = _outcome(data)
    if isinstance(found, Unreadable) or found.id == task_id:
        return found
    return Unreadable(f"is that of another task, {found.id!r:.80}")


def due_task(subject: str, data: bytes) -> Task | Unreadable:
    """The task in a message of LATER that is due. It must have a lane to go to."""
    found = task(data)
    if isinstance(found, Unreadable):
        return found
    lane = _lane(found.kind, found.pool, found.urgency)
    return found if lane and later_due(found.id) == subject else _MISPLACED


_MISPLACED = Unreadable("is not a valid task: what it says of itself is not what its subject says")


@lru_cache(maxsize=4096)
def _lane(kind: str, pool: str, urgency: str) -> str:
    """`work.<kind>.<pool>.<urgency>`; "" when they are no lane. Every task is checked, and there are few lanes."""
    try:
        return lane_filter(kind, pool, urgency).removesuffix(".*") if urgency in URGENCIES else ""
    except NotAToken:
        return ""
