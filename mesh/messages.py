"""Everything that crosses the bus, defined once.

Frozen, with a version where it matters; readers ignore fields they don't know, so nodes can be upgraded one
at a time. Encoded as MessagePack. A payload is carried as raw MessagePack (`msgspec.Raw`): only the submitter
and the worker process look inside it. Times are Unix seconds (float), sizes bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

WIRE_VERSION = 2

#: A payload or a result larger than this travels as a blob (claim check), bytes.
CLAIM_CHECK_BYTES = 128 * 1024
#: No payload, no result: exactly this object is left out of a message (another empty `Raw` would corrupt it).
NOTHING = Raw()


class BlobRef(Struct, frozen=True, omit_defaults=True):
    """A reference to an object in the blob store; in JSON `{"blob": "b-…", "size": 12, "content_type": …}`."""

    blob: str
    size: int = 0
    content_type: str = "application/octet-stream"


class Task(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One accepted piece of work, as it lies in a lane. Exactly one of `payload` and `payload_ref` is set."""

    id: str
    kind: str
    payload: Raw = NOTHING
    payload_ref: BlobRef | None = None
    blobs: tuple[str, ...] = ()
    """Ids of the blobs the payload names: the executing node fetches them for its worker."""
    pool: str = "any"
    urgency: str = "normal"
    requires: dict[str, Any] = {}
    submitted_at: float = 0.0
    timeout_s: float = 0.0
    """Longest run time; 0 means the kind's own default."""
    max_attempts: int = 3
    expires_at: float = 0.0
    """Not worth starting after this time; 0 means never."""
    origin: str = ""
    version: int = WIRE_VERSION


class TaskError(Struct, frozen=True, omit_defaults=True):
    """Why a task has no result. `code` is for programs, `message` one sentence for people."""

    code: str
    message: str
    faults: tuple[tuple[str, str], ...] = ()
    """(field, problem) pairs, when the input was at fault."""
    retryable: bool = False


class TaskState(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The `.state` record: overwritten while a task waits or runs; written only past 100 ms."""

    id: str
    kind: str
    state: str
    node: str = ""
    incarnation: str = ""
    attempt: int = 1
    submitted_at: float = 0.0
    started_at: float = 0.0
    updated_at: float = 0.0
    progress: float = 0.0
    """0 to 1."""
    note: str = ""
    text: str = ""
    """The end of what the task has written so far, when it writes a text."""
    text_from: int = 0
    """How many characters lie before `text`."""
    crashed_on: tuple[str, ...] = ()
    """Nodes on which this task killed its worker: two different ones make it poison."""
    lost: int = 0
    """How often its node died under it: not attempts, but past a limit the task is poison too."""
    error: TaskError | None = None
    """Why the last attempt failed, when another one follows."""


class TaskEnd(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The `.end` record: written once, first final state wins."""

    id: str
    kind: str
    state: str
    node: str = ""
    attempt: int = 1
    submitted_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    result: Raw = NOTHING
    """Any MessagePack value; absent when the result is a blob or there is none."""
    result_ref: BlobRef | None = None
    content_type: str = ""
    """Set when the result is bytes of that type (in `result` or behind `result_ref`)."""
    info: dict[str, Any] = {}
    """Facts about a result that is bytes: width, height, format …"""
    error: TaskError | None = None
    version: int = WIRE_VERSION


class Held(Struct, frozen=True):
    """One delivery a node has held for more than 50 ms."""

    stream_seq: int
    delivered: int
    reply: str
    """The ack subject, with which the reaper gives the delivery back on a dead node's behalf."""
    task: str


class HeldSet(Struct, frozen=True):
    """`node.<id>.held`: all the deliveries a node holds now (replaces what it said before)."""

    node: str
    incarnation: str
    held: tuple[Held, ...]


class Heartbeat(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`node.<id>.heartbeat`: alive, and how it is doing."""

    node: str
    incarnation: str
    seq: int
    state: str = "up"  # up, draining or left
    slots: int = 1
    running: int = 0
    queued: int = 0
    """Taken from a lane, not started yet."""
    cpu_percent: float = 0.0
    memory_used_bytes: int = 0
    done: int = 0
    failed: int = 0
    rates: dict[str, tuple[float, int]] = {}
    """kind -> (exponential mean of run time in seconds, tasks counted)"""
    interval_s: float = 0.5


class HeartbeatDigest(Struct, frozen=True, kw_only=True):
    """`mesh.heartbeat_digest`: the heartbeats the leader heard since its last one, as they came."""

    fence: int
    leader: str
    heartbeats: tuple[bytes, ...]


class KindInfo(Struct, frozen=True, omit_defaults=True):
    """Whether a node can run a kind; if not, why, and the command that adds it."""

    kind: str
    available: bool
    reason: str = ""
    how_to_install: str = ""


class Accelerator(Struct, frozen=True, omit_defaults=True):
    """A device that computes: `type` is cuda, rocm, mps, ane, tpu, …"""

    type: str
    name: str
    memory_bytes: int = 0
    driver: str = ""


class Capabilities(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a machine is and has."""

    os: str = ""
    arch: str = ""
    cpu_model: str = ""
    cpu_features: tuple[str, ...] = ()
    cores: int = 1
    """Usable by this process (affinity and cgroup limits counted)."""
    cores_physical: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    accelerators: tuple[Accelerator, ...] = ()
    libraries: dict[str, str] = {}
    """name -> version"""
    kinds: tuple[KindInfo, ...] = ()
    speeds: dict[str, float] = {}
    """kind -> seconds that its probe took here; less is faster. Measured once, when the node is idle."""


class NodeRecord(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `nodes`: who a node is. Rewritten when something in it changes, never per beat."""

    id: str
    name: str
    incarnation: str
    version: str = ""
    state: str = "up"
    slots: int = 1
    labels: dict[str, str] = {}
    region: str = ""
    api: str = ""
    """http://host:port of its bridge"""
    host: str = ""
    hosts_bus: bool = False
    addresses: tuple[str, ...] = ()
    """Where other machines reach it: two nodes that share one are on one machine."""
    wired: bool = True
    """Whether none of its addresses is a wireless card's."""
    server_client_id: int = 0
    """The bus server's id of this node's connection: what a KICK names."""
    server_id: str = ""
    joined_at: float = 0.0
    capabilities: Capabilities = Capabilities()
    registered_by: str = ""
    """Set on a record that `nodes/register` made for a machine that has not connected yet."""


class Claim(Struct, frozen=True):
    """KV `claims`: an idempotency key, and the task it stands for."""

    id: str
    digest: str
    """SHA-256 of the payload, so that the same key with another payload is a conflict."""
    at: float = 0.0


class Checkpoint(Struct, frozen=True, omit_defaults=True):
    """KV `checkpoints`: what a running task has got done, and which of its runs may replace that."""

    holder: str
    """The run that may: the node, and a name that no other run has."""
    blob: str = ""
    """"" while none was stored."""
    size: int = 0
    note: str = ""
    at: float = 0.0


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A task that used up its attempts or is poison: kept to be read and replayed."""

    task: Task
    end: TaskEnd
    died_at: float


encode = msgspec.msgpack.Encoder().encode

decode_task = msgspec.msgpack.Decoder(Task).decode
decode_state = msgspec.msgpack.Decoder(TaskState).decode
decode_end = msgspec.msgpack.Decoder(TaskEnd).decode
decode_held = msgspec.msgpack.Decoder(HeldSet).decode
decode_heartbeat = msgspec.msgpack.Decoder(Heartbeat).decode
decode_digest = msgspec.msgpack.Decoder(HeartbeatDigest).decode
decode_node = msgspec.msgpack.Decoder(NodeRecord).decode
decode_claim = msgspec.msgpack.Decoder(Claim).decode
decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode
decode_dead = msgspec.msgpack.Decoder(DeadLetter).decode
decode_any = msgspec.msgpack.Decoder().decode
