"""Settings of the mesh. Units are part of the names.

Presets: `LOCAL` (one machine, tests), `LAN` (the default), `WAN` (slow links: longer timeouts).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mesh.limits import Limits

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class MeshConfig:
    """Timing and limits of the mesh; every node of a mesh must have the same."""

    # --- heartbeats and death
    heartbeat_interval_s: float = 0.5
    """Period of a node's heartbeats, jittered by a tenth."""
    suspect_after_missed: int = 3
    """Missed heartbeats until a node is suspect: no new work is placed on it."""
    gone_after_missed: int = 5
    """Missed heartbeats until a node is gone: its announced deliveries go to other nodes."""
    disconnect_grace_s: float = 0.25
    """How long a node may take to reconnect after the bus reports that its connection closed."""
    stall_limit_s: float = 1.0
    """A node whose event loop stalls longer than this no longer trusts the deliveries it holds."""

    ping_interval_s: float = 2.0
    """Period of a connection's pings; after two unanswered ones it tries another bus server."""

    # --- leadership
    lease_ttl_s: float = 10.0
    """A lease that is not renewed for this long is void."""
    lease_renew_s: float = 2.0
    """How often the leader renews the lease. It steps down at two thirds of the TTL."""

    # --- bus servers
    bus_servers: int = 3
    """Target number of bus servers, on as many machines; 1: the bus never grows."""
    bus_candidate_s: float = 20.0
    """A node may host a bus server after the leader has seen it up for this long."""
    bus_server_gone_s: float = 60.0
    """A bus server whose node is gone for this long is replaced, if another machine is available."""
    bus_join_s: float = 30.0
    """A new bus server that has not joined the others after this long is abandoned."""
    bus_leave_s: float = 20.0
    """How long a leaving node waits until its bus server has handed over."""

    # --- lanes
    ack_wait_s: float = 15.0
    """A delivery that is neither announced nor renewed is redelivered after this. Renewed at a third."""
    pull_expires_s: float = 2.0
    """A pull request expires after this."""
    prefetch_work_s: float = 0.05
    """How much work a node may prefetch beyond its free slots, in seconds of the kind's measured run time."""
    prefetch_limit: int = 1000
    """Most tasks that a node prefetches beyond its free slots."""
    lane_idle_s: float = 600.0
    """A lane that is unused for this long is removed."""
    lane_scan_s: float = 2.0
    """How often a node lists the lanes, in case a wake-up hint was lost."""
    low_urgency_wait_s: float = 5.0
    """A lane that has waited this long is raised by one urgency, so that low urgency is never starved."""

    # --- limits and lifetimes
    work_max_bytes: int = 4 * GIB
    """Limit of the queue; beyond it submissions get 503. At most a quarter of the free disk."""
    later_max_bytes: int = 1 * GIB
    """Limit of the delayed work; beyond it delayed submissions get 503."""
    tasks_max_bytes: int = 2 * GIB
    """Limit of the results; beyond it the oldest are removed. At most an eighth of the free disk."""
    events_max_bytes: int = 64 * MIB
    """Limit of the journal."""
    dead_max_bytes: int = 256 * MIB
    """Limit of the dead letters."""
    metrics_max_bytes: int = 256 * MIB
    """Limit of the load history."""
    blobs_disk_share: float = 0.5
    """Share of the free disk of a bus server that blobs may take: half for kept blobs, half for the others. Beyond it
    uploads get 507."""
    result_ttl_s: int = 3600
    """How long a result is kept."""
    small_result_ttl_s: int = 600
    """How long an end record of less than 1 KiB is kept."""
    blob_ttl_s: int = 24 * 3600
    """How long a blob that no task names is kept."""
    claim_ttl_s: int = 24 * 3600
    """How long an idempotency key is remembered."""
    dead_ttl_s: int = 30 * 24 * 3600
    """How long a dead letter is kept."""
    metrics_ttl_s: int = 30 * 24 * 3600
    """How long load history is kept: the forecaster learns from it."""
    duplicate_window_s: float = 20.0
    """How long the bus deduplicates message ids: covers a lost acknowledgement."""

    checkpoint_max_bytes: int = 2 * GIB
    """A larger checkpoint is not stored: the task goes on, but a new attempt starts from the beginning."""

    # --- tasks
    max_attempts: int = 3
    """Attempts of a task unless its submitter sets another number."""
    retry_base_s: float = 1.0
    """Back-off before the second attempt; it doubles after each."""
    retry_max_s: float = 60.0
    """Longest back-off."""
    announce_after_s: float = 0.05
    """A delivery held longer than this is announced, so that it can be reclaimed at once if the node dies."""
    state_after_s: float = 0.1
    """A task that runs longer than this gets a `.state` record."""
    storage_sync_s: float = 1.0
    """How often a bus server syncs to disk: what a power cut may lose on a mesh with one server."""

    limits: Limits = field(default_factory=Limits)
    """How much a node and the mesh accept: `mesh/limits.py`."""

    # --- discovery
    discovery_wait_s: float = 1.0
    """How long a node that finds no mesh listens for other candidates before the lowest id creates one."""


LAN = MeshConfig()
LOCAL = replace(LAN, discovery_wait_s=0.3, bus_candidate_s=2.0, bus_server_gone_s=8.0)
WAN = replace(
    LAN,
    heartbeat_interval_s=1.0,
    suspect_after_missed=4,
    gone_after_missed=8,
    disconnect_grace_s=1.0,
    ping_interval_s=5.0,
    discovery_wait_s=3.0,
    bus_candidate_s=60.0,
    bus_server_gone_s=300.0,
)
PRESETS = {"local": LOCAL, "lan": LAN, "wan": WAN}
