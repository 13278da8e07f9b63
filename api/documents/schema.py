"""The documents of the bridge: what clients send and get, as the OpenAPI document shows them.

Requests are checked by hand where speed or wording matters, answers are built as plain data; tests hold both
against these models.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mesh.kinds.base import Resources

State = Field(description="queued, running, done, failed, cancelled or expired")
Time = Field(description="RFC 3339, UTC; null when it has not come yet")


class Doc(BaseModel):
    """Base of all documents."""

    model_config = ConfigDict(extra="forbid")


class SubmitBody(Doc):
    """A workload to run."""

    workload_type: str = Field(default="", description="the kind of work, in any case; required")
    kind: str = Field(default="", description="another name for workload_type")
    payload: Any = Field(default=None, description="what the kind takes; null: all defaults")
    requires: dict[str, Any] = Field(
        default={},
        description="what a node must have: cores, memory_mb, accelerator, gpu_memory_mb, labels, region, node",
    )
    urgency: str = Field(default="normal", description="high, normal or low")
    timeout_s: float = Field(default=0, ge=0, description="longest run time; 0: the kind's own")
    max_attempts: int = Field(default=0, ge=0, description="0: the mesh's default")
    delay_s: float = Field(default=0, ge=0, description="start no earlier than this many seconds from now")
    expires_s: float = Field(default=0, ge=0, description="not worth starting later than this; 0: always")
    idempotency_key: str = Field(default="", max_length=255, description="the same key again gives the same task")
    origin: str = Field(default="", description="the region the work comes from, or LATITUDE,LONGITUDE in degrees")


class FaultDoc(Doc):
    """One wrong field."""

    field: str
    problem: str


class ErrorBody(Doc):
    """`code` is for programs, `message` one sentence for people."""

    code: str
    message: str
    faults: list[FaultDoc]


class ErrorDoc(Doc):
    """Every answer of 400 and above."""

    error: ErrorBody
    id: str | None = Field(default=None, description="the task's id; with 500: the id in the node's log")
    state: str | None = Field(default=None, description="the task's state, when the error is about a task")


class Links(Doc):
    """Where to go on from a task."""

    status: str
    result: str
    cancel: str
    events: str


class SubmittedDoc(Doc):
    """A task the mesh holds durably."""

    id: str
    kind: str
    state: str = State
    duplicate: bool = Field(description="true when the idempotency key named a task accepted before")
    links: Links


class StatusDoc(Doc):
    """All that is known of a task."""

    id: str
    kind: str
    state: str = State
    attempt: int
    node: str = Field(description="id of the node that runs or ran it; empty while none does")
    submitted_at: str | None = Time
    started_at: str | None = Time
    ended_at: str | None = Time
    progress: float = Field(ge=0, le=1)
    note: str
    text: str | None = Field(
        default=None, description="present while a task that writes a text runs: the end of it, 4000 characters at most"
    )
    text_from: int | None = Field(default=None, description="how many characters lie before text")
    result: Any = Field(default=None, description="present when the task is done and its result is a small value")
    content_type: str | None = Field(
        default=None, description="present when the result is bytes: get them from links.result"
    )
    info: dict[str, Any] | None = Field(default=None, description="facts about a result that is bytes")
    error: ErrorBody | None = Field(description="why it has no result, or why the last attempt failed")
    waiting_for: list[str] = Field(description="why it has not started: each requirement nobody meets")
    waiting_helps: bool = Field(description="false when no node now in the mesh could ever run it")
    links: Links


class BlobDoc(Doc):
    """A reference; payloads take it as it is."""

    blob: str
    size: int
    content_type: str


class BusDoc(Doc):
    """Where the bus is."""

    urls: list[str]
    safety: str = ""


class QueueDoc(Doc):
    """How much waits."""

    tasks: int


class NodeDoc(BaseModel):
    """One node."""

    id: str
    name: str
    state: str = Field(description="up, suspect, draining, gone, left or registered")
    slots: int
    running: int
    queued: int
    load: dict[str, Any]
    capabilities: dict[str, Any]
    labels: dict[str, str]
    region: str
    api: str
    host: str
    hosts_bus: bool
    master: bool
    version: str
    last_seen_s: float = Field(description="seconds since its last heartbeat; -1 when none was heard")


class RegistryDoc(Doc):
    """The nodes."""

    total_nodes: int
    nodes: list[NodeDoc]


class NetworkDoc(BaseModel):
    """The whole mesh."""

    mesh: str
    mesh_id: str
    leader: str = Field(description="node id of the master; empty while there is none")
    fence: int
    bus: BusDoc
    queue: QueueDoc
    alarms: list[str]
    registry: RegistryDoc


class RegisterBody(BaseModel):
    """A machine that can't see the LAN by multicast. Fields that are not known here are ignored."""

    name: str = Field(min_length=1, max_length=255)
    id: str = Field(default="", description="the node id it has already, if any")
    capabilities: dict[str, Any] = {}
    labels: dict[str, str] = {}


class RegisteredDoc(Doc):
    """Who it is, and where the bus is."""

    id: str
    bus: BusDoc


class KindNode(Doc):
    """Whether a node can run a kind; if not, why, and the command that adds it."""

    id: str
    name: str
    available: bool
    reason: str
    how_to_install: str


class KindDoc(Doc):
    """A kind of work."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    kind: str
    summary: str
    payload_schema: dict[str, Any] = Field(alias="schema", description="JSON schema of its payload")
    example: dict[str, Any] | None
    resources: Resources
    timeout_s: float
    nodes: list[KindNode]


class KindsDoc(Doc):
    """All kinds of work."""

    workloads: list[KindDoc]


class DeadDoc(Doc):
    """A task that used up its attempts or is poison."""

    id: str
    kind: str
    died_at: str
    attempt: int
    node: str
    error: ErrorBody | None
    payload: Any = Field(default=None, description="only when one letter is asked for")
    payload_blob: str | None = Field(default=None, description="the blob that holds the payload, when it is large")
    requires: dict[str, Any] = {}
    links: dict[str, str]


class DeadListDoc(Doc):
    """All dead letters, oldest first."""

    dead: list[DeadDoc]


class HealthDoc(Doc):
    """The process answers."""

    status: str


class ReadyDoc(Doc):
    """Whether the node can serve; each check is "ok" or says what is wrong."""

    ready: bool
    checks: dict[str, str]
    error: ErrorBody | None = None


class FigureDoc(Doc):
    """One measured figure: the median of several repetitions, and between what the true one lies."""

    unit: str
    median: float
    low: float
    high: float
    spread: float
    samples: list[float]
    higher_is_better: bool = True


class OutcomeDoc(BaseModel):
    """One benchmark on one node."""

    node: str
    state: str = Field(description="ok, wrong answer, missing library, failed or cancelled")
    at: float = Field(description="Unix seconds")
    reason: str
    headline: str = Field(description="which of the figures stands for the benchmark")
    figures: dict[str, FigureDoc]
    quick: bool = False


class BenchmarkDoc(Doc):
    """One of the suite's benchmarks."""

    name: str
    title: str
    last: OutcomeDoc | Literal["never run"]
    nodes: list[OutcomeDoc] = Field(description="the latest outcome of each node, the newest first")


class BenchmarksDoc(Doc):
    """The suite."""

    benchmarks: list[BenchmarkDoc]


class BenchRunBody(BaseModel):
    """What to run, and where."""

    model_config = ConfigDict(extra="forbid")

    names: list[str] = Field(default=[], max_length=64, description="benchmarks; all when left out")
    nodes: list[str] | Literal["all"] | None = Field(
        default=None, description="ids or names of nodes, or all; this node when left out"
    )
    quick: bool = Field(default=False, description="less work and fewer repetitions: a look, not a result")


class BenchRunDoc(Doc):
    """Where a run is."""

    id: str
    state: str = Field(description="starting, running, done, failed or cancelled")
    names: list[str]
    nodes: list[str]
    quick: bool
    progress: float = Field(ge=0, le=1)
    total: int = Field(description="benchmarks times nodes times passes")
    done: int
    benchmark: str = Field(description="the one under way")
    node: str
    repetition: int
    last: str = Field(description="the latest figure, in words")
    began_at: str | None
    ended_at: str | None
    reason: str = Field(description="why it failed")
    links: dict[str, str]
