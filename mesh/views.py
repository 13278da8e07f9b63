"""What users are shown and what they ask for: plain frozen values, the same for REST, the SDK and the CLI."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from mesh.messages import BlobRef


@dataclass(frozen=True)
class SubmitRequest:
    """A wish, not yet validated against its kind's schema."""

    kind: str
    payload: Any = None
    requires: dict[str, Any] = field(default_factory=dict)
    """cores, memory_mb, accelerator, gpu_memory_mb, labels, region, node"""
    urgency: str = "normal"
    timeout_s: float = 0.0
    max_attempts: int = 0
    """0: the mesh's default"""
    delay_s: float = 0.0
    """Start no earlier than this many seconds from now."""
    expires_s: float = 0.0
    """Not worth starting later than this many seconds from now; 0: always worth it."""
    idempotency_key: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Accepted:
    """The mesh holds the task durably."""

    id: str
    kind: str
    state: str = "queued"
    duplicate: bool = False
    """True when an idempotency key named a task accepted before."""


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
    """The end of what a running task has written so far, 4,000 characters at most."""
    text_from: int = 0
    """How many characters lie before `text`."""
    result: Any = None
    """The value, when it is small and not bytes."""
    result_ref: BlobRef | None = None
    content_type: str = ""
    """Set when the result is bytes."""
    info: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    """{"code", "message", "faults": [[field, problem], …]}"""
    waiting_for: tuple[str, ...] = ()
    """Why a queued task has not started: each requirement nobody meets, in words."""
    waiting_helps: bool = True
    """False when no node now in the mesh could ever run it."""


@dataclass(frozen=True)
class NodeView:
    """One node, as the mesh sees it."""

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
    """Node id of the master, "" while there is none."""
    fence: int
    bus_urls: tuple[str, ...]
    safety: str
    """How safe queued work is, in words."""
    nodes: tuple[NodeView, ...]
    queued: int
    """Tasks waiting in all lanes."""
    alarms: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The document of network/status."""
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
