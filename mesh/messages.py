"""The messages of tasks and nodes, as they cross the bus; `mesh/coordination.py` has those of the mesh itself.

Frozen and encoded as MessagePack. Readers ignore unknown fields, so nodes can be upgraded one at a time within a wire
version. A payload is raw MessagePack (`msgspec.Raw`) that only the submitter and the worker process decode. Times are
Unix seconds (float), sizes bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

#: Changes with every incompatible change of a message or subject; see `mesh/membership/mesh_record.py`.
WIRE_VERSION = 2

#: A larger payload or result is sent as a blob (claim check), bytes.
CLAIM_CHECK_BYTES = 128 * 1024
#: The largest accepted `max_attempts` of a task.
MAX_ATTEMPTS = 100
#: No payload or no result. Only this very object is omitted from a message; another empty `Raw` would corrupt it.
NOTHING = Raw()


class BlobRef(Struct, frozen=True, omit_defaults=True):
    """A reference to an object in the blob store; in JSON `{"blob": "b-…", "size": 12, "content_type": …}`."""

    blob: str
    size: int = 0
    content_type: str = "application/octet-stream"


class Task(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An accepted task, as stored in a lane. Exactly one of `payload` and `payload_ref` is set."""

    id: str
    kind: str
    payload: Raw = NOTHING
    payload_ref: BlobRef | None = None
    blobs: tuple[str, ...] = ()
    """Ids of the blobs that the payload names; the executing node fetches them for its worker."""
    pool: str = "any"
    urgency: str = "normal"
    requires: dict[str, Any] = {}
    submitted_at: float = 0.0
    """By the clock of the submitter: for people only."""
    timeout_s: float = 0.0
    """Longest run time of one attempt; 0: the default of the kind."""
    max_attempts: int = 3
    expires_s: float = 0.0
    """The task expires unless it has started within this time after its lane got it, seconds by the clock of the bus;
    0: never."""
    origin: str = ""
    version: int = WIRE_VERSION


class TaskError(Struct, frozen=True, omit_defaults=True):
    """Why a task has no result: `code` for programs, `message` one sentence for people."""

    code: str
    message: str
    faults: tuple[tuple[str, str], ...] = ()
    """(field, problem) pairs, when the input is at fault."""
    retryable: bool = False
    """Whether another attempt may succeed. If not, the task is not retried: the same payload fails the same way."""


class TaskState(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The `.state` record: overwritten while a task waits or runs. Tasks that end within 100 ms have none."""

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
    """The end of the text that the task has written so far, if it writes one."""
    text_from: int = 0
    """Number of characters before `text`."""
    crashed_on: tuple[str, ...] = ()
    """Nodes on which this task killed its worker; after two different nodes it is poison."""
    lost: int = 0
    """How often its node died while it ran. These are not attempts, but beyond a limit the task is poison."""
    error: TaskError | None = None
    """Why the last attempt failed, when another one follows."""


class TaskEnd(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The `.end` record: written once; the first final state wins."""

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
    """Set when the result is bytes of that type, in `result` or behind `result_ref`."""
    info: dict[str, Any] = {}
    """Properties of a result that is bytes: width, height, format …"""
    error: TaskError | None = None
    version: int = WIRE_VERSION


class Held(Struct, frozen=True):
    """One delivery that a node has held for more than 50 ms."""

    stream_seq: int
    delivered: int
    reply: str
    """The ack subject, with which the leader NAKs the delivery of a dead node."""
    task: str


class HeldSet(Struct, frozen=True):
    """`node.<id>.held`: all deliveries that a node holds now; replaces its previous message."""

    node: str
    incarnation: str
    held: tuple[Held, ...]


class Heartbeat(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """`node.<id>.heartbeat`: the node is alive; its load and counters."""

    node: str
    incarnation: str
    seq: int
    state: str = "up"  # up, draining or left
    slots: int = 1
    running: int = 0
    queued: int = 0
    """Tasks taken from a lane and not started yet."""
    cores_used: int = 0
    """Slots that running tasks use."""
    cpu_percent: float = 0.0
    memory_used_bytes: int = 0
    done: int = 0
    failed: int = 0
    rates: dict[str, tuple[float, int]] = {}
    """kind -> (exponential mean of the run time in seconds, number of tasks)"""
    interval_s: float = 0.5
    twin: str = ""
    """The machine of another process that ran as this node lately; see `mesh/membership/twins.py`."""


class HeartbeatDigest(Struct, frozen=True, kw_only=True):
    """`mesh.heartbeat_digest`: the heartbeats that the leader received since its last digest, still encoded."""

    fence: int
    leader: str
    heartbeats: tuple[bytes, ...]


class KindInfo(Struct, frozen=True, omit_defaults=True):
    """Whether a node can run a kind; if not, why not, and the command that installs it."""

    kind: str
    available: bool
    reason: str = ""
    how_to_install: str = ""


class Accelerator(Struct, frozen=True, omit_defaults=True):
    """A compute device: `type` is cuda, rocm, mps, ane, tpu …"""

    type: str
    name: str
    memory_bytes: int = 0
    driver: str = ""


class Capabilities(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The hardware and software of a machine."""

    os: str = ""
    arch: str = ""
    cpu_model: str = ""
    cpu_features: tuple[str, ...] = ()
    cores: int = 1
    """Usable by the node: CPU affinity and cgroup limits are taken into account."""
    cores_physical: int = 0
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    accelerators: tuple[Accelerator, ...] = ()
    libraries: dict[str, str] = {}
    """name -> version"""
    kinds: tuple[KindInfo, ...] = ()
    speeds: dict[str, float] = {}
    """kind -> run time of its probe on this node in seconds. Measured once, when the node is idle."""


class NodeRecord(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """KV `nodes`: the node record. Rewritten when something in it changes, not with every heartbeat."""

    id: str
    name: str
    incarnation: str
    version: str = ""
    state: str = "up"
    slots: int = 1
    labels: dict[str, str] = {}
    region: str = ""
    api: str = ""
    """http://HOST:PORT of its REST bridge"""
    host: str = ""
    hosts_bus: bool = False
    addresses: tuple[str, ...] = ()
    """Addresses where other machines reach it. Two nodes that share an address are on one machine."""
    wired: bool = True
    """Whether none of its addresses belongs to a wireless interface."""
    server_client_id: int = 0
    """The bus server's id of this node's connection, for closing it (KICK)."""
    server_id: str = ""
    joined_at: float = 0.0
    capabilities: Capabilities = Capabilities()
    registered_by: str = ""
    """Set when `nodes/register` made the record for a machine that has not connected yet."""


class Claim(Struct, frozen=True):
    """KV `claims`: the task that an idempotency key stands for."""

    id: str
    digest: str
    """SHA-256 of the payload: the same key with another payload is a conflict."""
    age_s: float = 0.0
    """How old it was when a merge copied it into this mesh; since then its bucket counts, seconds."""
    kind: str = ""
    """The same key with another kind of work is a conflict."""


class Checkpoint(Struct, frozen=True, omit_defaults=True):
    """KV `checkpoints`: the newest checkpoint of a running task, and the run that may replace it."""

    holder: str
    """The run that may replace it: node id, and a random name of the run."""
    blob: str = ""
    """Id of the blob with the checkpoint; empty while there is none."""
    size: int = 0
    note: str = ""
    at: float = 0.0


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A task that used up its attempts or is poison, kept for reading and replay; or a message that is no task."""

    task: Task
    end: TaskEnd
    died_at: float
    raw: bytes = b""
    """The message, when it can't be read as a task: then `task` has only the id and kind of its subject."""


encode = msgspec.msgpack.Encoder().encode

decode_any = msgspec.msgpack.Decoder().decode
