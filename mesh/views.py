"""Requests and views: plain frozen values that REST, the Python API and the command line share.

The REST documents are derived from these classes, the docstring of a field is its description there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from msgspec import Meta

from mesh.messages import BlobRef, DeadLetter


@dataclass(frozen=True)
class SubmitRequest:
    """A request to run a task, not validated yet."""

    kind: str
    """The kind of work."""
    payload: Any = None
    """What the kind takes; None: all defaults."""
    requires: dict[str, Any] = field(default_factory=dict)
    """What a node must have: cores, memory_mb, accelerator, gpu_memory_mb, labels, region, node."""
    urgency: str = "normal"
    """high, normal or low"""
    timeout_s: Annotated[float, Meta(ge=0)] = 0.0
    """Longest run time of one attempt; 0: the default of the kind."""
    max_attempts: Annotated[int, Meta(ge=1, le=100)] | None = None
    """Attempts at most; null: the default of the mesh."""
    delay_s: Annotated[float, Meta(ge=0)] = 0.0
    """Start no earlier than this many seconds from now."""
    expires_s: Annotated[float, Meta(ge=0)] = 0.0
    """Expire if not started within this many seconds, counted from the end of the delay; 0: never."""
    idempotency_key: Annotated[str, Meta(max_length=255)] = ""
    """A second request with the same key, kind and payload returns the first task; "": no key."""
    origin: str = ""
    """Where the work comes from: a region, or "LATITUDE,LONGITUDE" in degrees; "": not stated."""


@dataclass(frozen=True)
class Accepted:
    """The answer to a submission: the mesh holds the task durably."""

    id: str
    kind: str
    state: str = "queued"
    duplicate: bool = False
    """Whether the idempotency key stands for a task that was accepted before."""
    warnings: tuple[str, ...] = ()
    """Why no node that is in the mesh now can ever run the task, a sentence each; empty when one can."""


@dataclass(frozen=True)
class TaskSummary:
    """A task in a list."""

    id: str
    kind: str
    state: str
    attempt: int = 0
    """Number of the last attempt, from 1; 0 before the first."""
    node: str = ""
    """Id of the node that runs it, or ran it; "" while none does."""
    submitted_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    progress: Annotated[float, Meta(ge=0, le=1)] = 0.0
    note: str = ""
    """What the task is doing, in its own words."""
    error: dict[str, Any] | None = None
    """Why it has no result, or why the last attempt failed: code, message, faults (field and problem each)."""


@dataclass(frozen=True)
class TaskView(TaskSummary):
    """All that is known of a task."""

    text: str = ""
    """The end of the text that a running task has written so far, at most 4,000 characters."""
    text_from: int = 0
    """Number of characters before `text`."""
    result: Any = None
    """The value, when it is small and not bytes."""
    result_ref: BlobRef | None = None
    content_type: str = ""
    """Set when the result is bytes."""
    info: dict[str, Any] = field(default_factory=dict)
    """Facts about a result that is bytes: width, height, format …"""
    waiting_for: tuple[str, ...] = ()
    """Why a queued task has not started: phrases such as "2 of 5 nodes: no cv2"."""
    waiting_helps: bool = True
    """False when no node of the mesh could ever run it."""


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks a list has; what is empty or 0 selects all."""

    state: str = ""
    """queued, running, done, failed, cancelled or expired"""
    kind: str = ""
    node: str = ""
    """Id or name of the node that runs it, or ran it."""
    min_age_s: float = 0.0
    """Accepted, or ended if it has ended, at least this many seconds ago, by the clock of the bus."""


@dataclass(frozen=True)
class TaskPage:
    """A part of the list of tasks."""

    tasks: tuple[TaskSummary, ...]
    """May be fewer than asked for, even none, although there are more."""
    next: str
    """Cursor of the next page; "" when this is the last one."""


@dataclass(frozen=True)
class DeadPage:
    """A part of the list of dead letters."""

    letters: tuple[DeadLetter, ...]
    next: str
    """Cursor of the next page; "" when this is the last one."""


@dataclass(frozen=True)
class NodeView:
    """A node as an observer in the mesh sees it."""

    id: str
    name: str
    state: str
    """up, suspect, draining, gone, left or registered"""
    slots: int
    running: int | None
    """Tasks that it runs; null when no heartbeat of it was heard."""
    queued: int | None
    """Tasks it has fetched and not started yet; null when no heartbeat of it was heard."""
    load: dict[str, Any]
    """cpu_percent, memory_used_bytes, done, failed, rates {kind: {mean_s, tasks}}"""
    capabilities: dict[str, Any]
    """Hardware, libraries, kinds of work and speeds: the fields of mesh.messages.Capabilities."""
    labels: dict[str, str]
    region: str
    api: str
    """URL of its REST API."""
    host: str
    hosts_bus: bool
    """Whether it runs a bus server."""
    master: bool
    """Whether it is the leader."""
    version: str
    last_seen_s: float
    """Seconds since its last heartbeat; -1 when none was heard."""
    twin: str = ""
    """The machine of another process that ran as this node lately; "" when there is none."""


@dataclass(frozen=True)
class BusView:
    """Where the bus is."""

    urls: tuple[str, ...]
    safety: str = ""
    """How safe queued work is, one sentence; "" where only a node knows."""
    standstill: str = ""
    """Why nothing can be stored now, one sentence; "" while it can, and where only a node knows."""


@dataclass(frozen=True)
class QueueView:
    """The work that waits."""

    tasks: int | None
    """Tasks in all lanes; null when the bus, or one of the lanes, did not answer."""


@dataclass(frozen=True)
class RegistryView:
    """The nodes of the mesh."""

    total_nodes: int
    nodes: tuple[NodeView, ...]


@dataclass(frozen=True)
class WaitingView:
    """Why a node has not joined its mesh: who waits for whom. All names are ids of nodes."""

    reason: str
    """One sentence, with what to do."""
    members: tuple[str, ...] = ()
    """The nodes that run the bus servers, as far as this node knows."""
    reached: tuple[str, ...] = ()
    """Those whose bus servers are connected."""
    heard: tuple[str, ...] = ()
    """Those that announce themselves on the local network."""
    needed: int = 0
    """How many bus servers must be connected; 0: not known."""
    if_lost: str = ""
    """The command for this machine if the missing ones are lost for good; "" while there is nothing to decide."""


@dataclass(frozen=True)
class NetworkView:
    """The whole mesh: what `GET /api/v1.2/network/status` shows."""

    mesh: str
    """Name of the mesh."""
    mesh_id: str
    leader: str
    """Node id of the leader; "" while there is none."""
    fence: int
    """Fencing number of the leader's term."""
    bus: BusView
    queue: QueueView
    alarms: tuple[str, ...]
    """What needs attention, a sentence each."""
    registry: RegistryView
    waiting: WaitingView | None = None
    """Set while the node has not joined its mesh: what it waits for. The other fields are what it remembers then."""
