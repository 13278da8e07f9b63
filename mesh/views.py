"""Requests and views: plain frozen values that REST, the Python API and the command line share."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mesh.messages import BlobRef


@dataclass(frozen=True)
class SubmitRequest:
    """A request to run a task, not validated yet."""

    kind: str
    payload: Any = None
    requires: dict[str, Any] = field(default_factory=dict)
    """What a node must have: cores, memory_mb, accelerator, gpu_memory_mb, labels, region, node."""
    urgency: str = "normal"
    """high, normal or low"""
    timeout_s: float = 0.0
    """Longest run time of one attempt; 0: the default of the kind."""
    max_attempts: int = 0
    """0: the default of the mesh"""
    delay_s: float = 0.0
    """Start no earlier than this many seconds from now."""
    expires_s: float = 0.0
    """Expire if not started within this many seconds, counted from the end of the delay; 0: never."""
    idempotency_key: str = ""
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


@dataclass(frozen=True)
class TaskView:
    """All that is known of a task."""

    id: str
    kind: str
    state: str
    attempt: int = 0
    node: str = ""
    submitted_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    progress: float = 0.0
    note: str = ""
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
    error: dict[str, Any] | None = None
    """{"code", "message", "faults": [{"field", "problem"}, …]}"""
    waiting_for: tuple[str, ...] = ()
    """Why a queued task has not started: phrases such as "2 of 5 nodes: no cv2"."""
    waiting_helps: bool = True
    """False when no node of the mesh could ever run it."""


@dataclass(frozen=True)
class NodeView:
    """A node as an observer in the mesh sees it."""

    id: str
    name: str
    state: str
    """up, suspect, draining, gone, left or registered"""
    slots: int
    running: int
    queued: int
    load: dict[str, Any]
    """cpu_percent, memory_used_bytes, done, failed, rates {kind: {mean_s, tasks}}"""
    capabilities: dict[str, Any]
    labels: dict[str, str]
    region: str
    api: str
    host: str
    hosts_bus: bool
    master: bool
    version: str
    last_seen_s: float
    """Seconds since its last heartbeat; -1 when none was heard."""


@dataclass(frozen=True)
class NetworkView:
    """The whole mesh: what `GET /api/v1.2/network/status` shows."""

    mesh: str
    mesh_id: str
    leader: str
    """Node id of the leader; "" while there is none."""
    fence: int
    bus_urls: tuple[str, ...]
    safety: str
    """How safe queued work is, one sentence."""
    nodes: tuple[NodeView, ...]
    queued: int
    """Tasks waiting in all lanes."""
    alarms: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The document of `network/status`."""
        return {
            "mesh": self.mesh,
            "mesh_id": self.mesh_id,
            "leader": self.leader,
            "fence": self.fence,
            "bus": {"urls": list(self.bus_urls), "safety": self.safety},
            "queue": {"tasks": self.queued},
            "alarms": list(self.alarms),
            "registry": {"total_nodes": len(self.nodes), "nodes": [asdict(node) for node in self.nodes]},
        }
