"""Decodes what comes from outside: bus messages, KV records and stream messages. No other module of the mesh does.

A decoder returns the value, or `Unreadable` with the reason; it never raises. What it returns has been checked: ids and
names may be used in subjects, file names and keys. Pure, except that an ignored record is logged.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from mesh.capacity import LeaveOrder
from mesh.coordination import (
    HostingAnswer,
    HostingRequest,
    Lease,
    MergeOrder,
    MeshEvent,
    MeshRecord,
    Plan,
    Pool,
    ServerRecord,
)
from mesh.lanes import LAST, requirement_faults
from mesh.messages import (
    BlobRef,
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
from mesh.subjects import URGENCIES, NotAToken, is_task_id, is_token, lane_subject, later_due
from mesh.task_states import FINAL

log = logging.getLogger(__name__)

Value = TypeVar("Value")

#: The largest accepted `max_attempts` of a task.
MAX_ATTEMPTS = 100
#: How many (key, revision) pairs of ignored records are remembered, so that each is logged once.
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why bytes are not a valid value."""

    reason: str


class Decoder(Generic[Value]):
    """The decoder of one wire type: `decoder(data)` returns the value or `Unreadable`."""

    __slots__ = ("_decode", "_fault", "name")

    def __init__(self, type_: Any, name: str, fault: Callable[[Value], str] = lambda _: "", json: bool = False) -> None:
        """`name`: what people call it; `fault(value)`: why the value may not be used, "" when it may."""
        module = msgspec.json if json else msgspec.msgpack
        self._decode: Callable[[bytes], Value] = module.Decoder(type_).decode
        self._fault, self.name = fault, name

    def __call__(self, data: bytes | msgspec.Raw) -> Value | Unreadable:
        """The value, or why there is none."""
        try:
            value = self._decode(data)  # type: ignore[arg-type]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            # Text that is not UTF-8 raises UnicodeDecodeError, which is a ValueError and no MsgspecError.
            return Unreadable(f"is not a {self.name}: {error}")
        fault = self._fault(value)
        return Unreadable(f"is not a valid {self.name}: {fault}") if fault else value


class Record(Protocol):
    """An entry of a KV bucket."""

    @property
    def key(self) -> str:
        """Its key."""

    @property
    def value(self) -> bytes:
        """Its value, encoded."""

    @property
    def revision(self) -> int:
        """The revision with which the value was written."""


_ignored: dict[tuple[str, str, int], None] = {}


def readable(decode: Decoder[Value], entry: Record | None) -> Value | None:
    """The value of a KV record; None when there is none, or it can't be read, which is logged once per revision."""
    if entry is None or not entry.value:
        return None
    found = decode(entry.value)
    if not isinstance(found, Unreadable):
        return found
    ignored = (decode.name, entry.key, entry.revision)
    if ignored not in _ignored:
        while len(_ignored) >= REMEMBERED:
            del _ignored[next(iter(_ignored))]
        _ignored[ignored] = None
        log.warning(
            "the record %s (revision %d) can't be read and is ignored: it %s", entry.key, entry.revision, found.reason
        )
    return None


def readable_of(decode: Decoder[Value], entries: Iterable[Record]) -> list[Value]:
    """The values of those records that can be read."""
    return [found for entry in entries if (found := readable(decode, entry)) is not None]


# --- checks -----------------------------------------------------------------------------------------
_is_name = lru_cache(maxsize=4096)(is_token)  # for kinds, of which there are few


def _task_fault(task: Task) -> str:
    # Every node decodes every task that it runs: what a task leaves out is not looked at.
    if not is_task_id(task.id):
        return f"{task.id!r:.80} is not a task id"
    if not _is_name(task.kind):
        return f"{task.kind!r:.80} can't be a kind"
    if not 0 <= task.max_attempts <= MAX_ATTEMPTS:
        return f"max_attempts must be from 0 to {MAX_ATTEMPTS}"
    if not 0.0 <= task.submitted_at + task.timeout_s + task.expires_at < math.inf or task.timeout_s < 0.0:
        return "submitted_at, timeout_s and expires_at must be numbers of seconds from 0"
    if task.requires and (faults := requirement_faults(task.requires)):
        return f"{faults[0].field:.80} {faults[0].problem}"
    if task.payload_ref is not None and (fault := _blob_fault(task.payload_ref)):
        return fault
    if task.blobs and not all(map(is_token, task.blobs)):
        return "it names a blob whose id can't be one"
    return ""


def _blob_fault(reference: BlobRef | None) -> str:
    if reference is None or is_token(reference.blob):
        return ""
    return f"{reference.blob!r:.80} can't be the id of a blob"


#: A bus server's name, an address, a URL: they become part of a server's configuration.
_is_server_name = re.compile(r"[A-Za-z0-9_.~-]{1,200}").fullmatch
_is_host = re.compile(r"[A-Za-z0-9_.:%\[\]-]{1,255}").fullmatch
_is_bus_url = re.compile(r"(nats|tls)://[A-Za-z0-9_.:%\[\]@~-]{1,300}").fullmatch
#: A subject to publish to: printable, without a space and without wildcards.
_is_subject = re.compile(r"[!-)+-=?-~]{1,512}").fullmatch


def _first(*faults: tuple[object, str]) -> str:
    """The text of the first (holds, text) that does not hold."""
    return next((text for holds, text in faults if not holds), "")


def _is_token_or_empty(text: str) -> bool:
    return not text or is_token(text)


def _end_fault(end: TaskEnd) -> str:
    if not is_task_id(end.id):
        return f"{end.id!r:.80} is not a task id"
    if end.state not in FINAL:
        return f"{end.state!r:.80} is not a final state"
    return _blob_fault(end.result_ref)


def _heartbeat_fault(heartbeat: Heartbeat) -> str:
    rates = heartbeat.rates.values()
    return _first(
        (is_token(heartbeat.node), "its node can't be the id of one"),
        (_is_token_or_empty(heartbeat.incarnation), "its incarnation can't be one"),
        (heartbeat.slots >= 0 and 0 <= heartbeat.interval_s < math.inf, "its slots or interval are no amounts"),
        (all(0 <= mean_s < math.inf and number >= 0 for mean_s, number in rates), "its rates are no amounts"),
    )


def _node_fault(node: NodeRecord) -> str:
    return _first(
        (is_token(node.id), "its id can't be that of a node"),
        (_is_token_or_empty(node.incarnation), "its incarnation can't be one"),
        (_is_token_or_empty(node.region), "its region can't be one"),
        (node.slots >= 0, "its slots are no amount"),
        (all(0 <= speed < math.inf for speed in node.capabilities.speeds.values()), "its speeds are no times"),
    )


def _held_fault(held: HeldSet) -> str:
    return _first(
        (is_token(held.node), "its node can't be the id of one"),
        (all(_is_subject(delivery.reply) for delivery in held.held), "it names what can't be an ack subject"),
    )


def _plan_fault(plan: Plan) -> str:
    priorities = (rank for ranks in plan.ranks.values() for rank in ranks.values())
    return _first(
        (all(0 <= rank <= LAST for rank in priorities), f"a priority is not from 0 to {LAST}"),
        (all(map(_is_token_or_empty, plan.regions)), "it names what can't be a region"),
        (math.isfinite(plan.made_at), "made_at is not a time"),
    )


def _pool_fault(pool: Pool) -> str:
    faults = requirement_faults(pool.requires)
    return _first((is_token(pool.name), "its name can't be that of a pool")) or (
        f"{faults[0].field:.80} {faults[0].problem}" if faults else ""
    )


def _routes_fault(routes: tuple[tuple[str, int], ...]) -> str:
    return _first((all(_is_host(host) and 0 < port < 65536 for host, port in routes), "it names what can't be a route"))


def _server_fault(server: ServerRecord) -> str:
    return _routes_fault(server.routes) or _first(
        (is_token(server.node), "its node can't be the id of one"),
        (_is_server_name(server.name), "its name can't be that of a bus server"),
        (all(map(_is_bus_url, server.client_urls)), "it names what can't be the URL of a bus"),
    )


def _request_fault(request: HostingRequest) -> str:
    return _routes_fault(request.routes) or _first(
        (request.do in ("host", "stop"), "it asks for neither host nor stop"),
        (not request.name or _is_server_name(request.name), "its name can't be that of a bus server"),
    )


def _merge_fault(order: MergeOrder) -> str:
    return _first(
        (is_token(order.into), "the other mesh has no valid id"),
        (order.urls and all(map(_is_bus_url, order.urls)), "it names no valid URLs of a bus"),
        (order.phase in ("drain", "moved"), "its phase is unknown"),
        (_is_token_or_empty(order.mover), "its mover can't be the id of a node"),
    )


def _mesh_fault(record: MeshRecord) -> str:
    return _first(
        (is_token(record.id), "it has no valid id"),
        (is_token(record.epoch), "it has no valid epoch"),
        (_is_token_or_empty(record.founder), "its founder can't be the id of a node"),
    )


# --- tasks ------------------------------------------------------------------------------------------
task: Decoder[Task] = Decoder(Task, "task", _task_fault)
end: Decoder[TaskEnd] = Decoder(TaskEnd, "final record", _end_fault)
state: Decoder[TaskState] = Decoder(
    TaskState, "state record", lambda found: _first((is_task_id(found.id), "its id is not a task id"))
)
dead_letter: Decoder[DeadLetter] = Decoder(
    DeadLetter, "dead letter", lambda found: _task_fault(found.task) or _end_fault(found.end)
)
claim: Decoder[Claim] = Decoder(
    Claim, "claim of an idempotency key", lambda found: _first((is_task_id(found.id), "its id is not a task id"))
)
checkpoint: Decoder[Checkpoint] = Decoder(
    Checkpoint, "checkpoint", lambda found: _first((_is_token_or_empty(found.blob), "its blob can't be one"))
)
anything: Decoder[Any] = Decoder(Any, "MessagePack value")


class BlobFacts(msgspec.Struct, frozen=True):
    """The metadata of an object in a blob store, as far as a merge needs it."""

    nuid: str
    deleted: bool = False


blob_facts: Decoder[BlobFacts] = Decoder(
    BlobFacts, "record of a blob", lambda found: _first((is_token(found.nuid), "its chunks have no name")), json=True
)

# --- nodes ------------------------------------------------------------------------------------------
held: Decoder[HeldSet] = Decoder(HeldSet, "set of held deliveries", _held_fault)
heartbeat: Decoder[Heartbeat] = Decoder(Heartbeat, "heartbeat", _heartbeat_fault)
digest: Decoder[HeartbeatDigest] = Decoder(
    HeartbeatDigest, "heartbeat digest", lambda found: _first((is_token(found.leader), "its leader can't be a node"))
)
node: Decoder[NodeRecord] = Decoder(NodeRecord, "node record", _node_fault)
leave: Decoder[LeaveOrder] = Decoder(LeaveOrder, "order to leave")

# --- the mesh ---------------------------------------------------------------------------------------
mesh: Decoder[MeshRecord] = Decoder(MeshRecord, "mesh record", _mesh_fault)
lease: Decoder[Lease] = Decoder(
    Lease, "lease", lambda found: _first((is_token(found.node) and is_token(found.incarnation), "it names no node"))
)
plan: Decoder[Plan] = Decoder(Plan, "placement plan", _plan_fault)
pool: Decoder[Pool] = Decoder(Pool, "pool", _pool_fault)
server: Decoder[ServerRecord] = Decoder(ServerRecord, "record of a bus server", _server_fault)
hosting_request: Decoder[HostingRequest] = Decoder(HostingRequest, "request about a bus server", _request_fault)
hosting_answer: Decoder[HostingAnswer] = Decoder(HostingAnswer, "answer about a bus server")
merge: Decoder[MergeOrder] = Decoder(MergeOrder, "order to merge", _merge_fault)
event: Decoder[MeshEvent] = Decoder(MeshEvent, "journal entry")
alarms: Decoder[tuple[str, ...]] = Decoder(tuple[str, ...], "list of alarms")
texts: Decoder[dict[str, str]] = Decoder(dict[str, str], "map of texts")
facts: Decoder[dict[str, Any]] = Decoder(dict[str, Any], "map")


def lane_task(subject: str, data: bytes) -> Task | Unreadable:
    """The task in a message of a lane. It must be stored under its own subject, by which others find it."""
    found = task(data)
    if isinstance(found, Unreadable):
        return found
    return found if _lane_of(found) == subject else _MISPLACED


def due_task(subject: str, data: bytes) -> Task | Unreadable:
    """The task in a message of LATER that is due. It must have a lane to go to."""
    found = task(data)
    if isinstance(found, Unreadable):
        return found
    return found if _lane_of(found) and later_due(found.id) == subject else _MISPLACED


_MISPLACED = Unreadable("is not a valid task: what it says of itself is not what its subject says")


def _lane_of(found: Task) -> str:
    """The subject of the task in its lane; "" when its pool or urgency make none."""
    try:
        return lane_subject(found.kind, found.pool, found.urgency, found.id) if found.urgency in URGENCIES else ""
    except NotAToken:
        return ""
