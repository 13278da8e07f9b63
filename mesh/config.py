"""Settings of the mesh: frozen, units last in the name, one line under each that says what it does.

Presets: `LOCAL` (one machine, tests), `LAN` (the default), `WAN` (slow links: everything waits longer).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True)
class MeshConfig:
    """How the mesh behaves; the same on every node of it."""

    # --- heartbeats and death
    heartbeat_interval_s: float = 0.5
    """A node says it lives this often, jittered by a tenth."""
    suspect_after_missed: int = 3
    """Missed heartbeats until a node is suspect: no new work is placed on it."""
    gone_after_missed: int = 5
    """Missed heartbeats until a node is gone: its announced work is given to others."""
    disconnect_grace_s: float = 0.25
    """After the bus says a node's connection closed: how long it may take to come back."""
    stall_limit_s: float = 1.0
    """A node whose loop stood still longer than this no longer trusts the deliveries it holds."""

    ping_interval_s: float = 2.0
    """A connection asks its bus server whether it is there; after two unanswered it goes to another one."""

    # --- leadership
    lease_ttl_s: float = 10.0
    """A lease not renewed for this long is void."""
    lease_renew_s: float = 2.0
    """How often the master renews it; it stops itself at two thirds of the TTL."""

    # --- bus servers
    bus_servers: int = 3
    """How many bus servers the mesh has once there are as many machines; 1 never grows."""
    bus_candidate_s: float = 20.0
    """A node hosts a bus server only after it was up this long, as the master saw it."""
    bus_server_gone_s: float = 60.0
    """A bus server whose node is gone for this long is replaced by another one, if there is one."""
    bus_join_s: float = 30.0
    """A new bus server that is not with the others after this long is given up."""
    bus_leave_s: float = 20.0
    """How long a node that leaves waits for its bus server's work to be handed over."""

    # --- lanes
    ack_wait_s: float = 15.0
    """The floor: work that nobody announced as held comes back after this. Renewed at a third."""
    pull_expires_s: float = 2.0
    """A pull asks for work this long at most."""
    prefetch_work_s: float = 0.05
    """How much work a node may hold beyond its free slots, in seconds of the kind's measured run time."""
    prefetch_limit: int = 1000
    """Most tasks a node holds beyond its free slots."""
    lane_idle_s: float = 600.0
    """A lane nobody used for this long is removed."""
    lanes_alarm: int = 200
    """More lanes than this raise an alarm: each one is a Raft group."""
    lane_scan_s: float = 2.0
    """How often a node looks for lanes by itself, should a wake-up hint get lost."""
    low_urgency_wait_s: float = 5.0
    """A lane that waited this long moves up one urgency, so that low is never starved."""

    # --- limits and lifetimes
    work_max_bytes: int = 4 * GIB
    """The queue's limit; past it submissions get 503. Never more than a quarter of the free disk."""
    later_max_bytes: int = 1 * GIB
    """The limit of delayed work; past it delayed submissions get 503."""
    storage_alarm_share: float = 0.8
    """A store fuller than this share of its limit raises an alarm."""
    tasks_max_bytes: int = 2 * GIB
    """The results' limit; past it the oldest go first. Never more than an eighth of the free disk."""
    events_max_bytes: int = 64 * MIB
    """The limit of the mesh's journal."""
    dead_max_bytes: int = 256 * MIB
    """The limit of the dead letters."""
    metrics_max_bytes: int = 256 * MIB
    """The limit of the load history."""
    blobs_disk_share: float = 0.5
    """The share of the bus machine's free disk that blobs may take, kept ones and others half each; past it uploads
    get 507."""
    result_ttl_s: int = 3600
    """How long a result is kept."""
    small_result_ttl_s: int = 600
    """How long an end record under 1 KiB is kept."""
    blob_ttl_s: int = 24 * 3600
    """How long a blob no task names is kept."""
    claim_ttl_s: int = 24 * 3600
    """How long an idempotency key is remembered."""
    dead_ttl_s: int = 30 * 24 * 3600
    """How long a dead letter is kept."""
    metrics_ttl_s: int = 30 * 24 * 3600
    """How long load history is kept: what the forecaster learns from."""
    duplicate_window_s: float = 20.0
    """How long the bus remembers a submission's id (covers a lost acknowledgement)."""

    checkpoint_max_bytes: int = 2 * GIB
    """A checkpoint larger than this is not kept: the task goes on, and would start over."""

    # --- tasks
    max_attempts: int = 3
    """Attempts a task gets unless its submitter says otherwise."""
    retry_base_s: float = 1.0
    """Back-off before the second attempt; doubles after each."""
    retry_max_s: float = 60.0
    """Longest back-off."""
    announce_after_s: float = 0.05
    """A delivery held longer than this is announced, so that it can be given away at once if the node dies."""
    state_after_s: float = 0.1
    """A task that runs longer than this gets a `.state` record."""
    max_inline_body_bytes: int = 4 * MIB
    """Largest request body the bridge takes for a task; larger data goes up as a blob."""
    storage_sync_s: float = 1.0
    """The bus server writes through to the disk this often: what a power cut may lose on a one-server mesh."""

    # --- discovery
    discovery_wait_s: float = 1.0
    """How long a node that finds no mesh listens for other candidates before the lowest id founds."""


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
