"""The view of a member for people and programs. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from mesh.membership.member import Member
from mesh.views import NodeView


def node_view(member: Member, last_seen_s: float, is_leader: bool) -> NodeView:
    """The view of `member`; `last_seen_s`: seconds since its last heartbeat, -1 when none was received."""
    record, heartbeat = member.record, member.heartbeat
    return NodeView(
        id=record.id,
        name=record.name,
        state=member.state,
        slots=record.slots,
        running=heartbeat.running if heartbeat else None,
        queued=heartbeat.queued if heartbeat else None,
        load=_load(member),
        capabilities=msgspec.to_builtins(record.capabilities),
        labels=dict(record.labels),
        region=record.region,
        api=record.api,
        host=record.host,
        hosts_bus=record.hosts_bus,
        master=is_leader,
        version=record.version,
        last_seen_s=round(last_seen_s, 3),
        twin=heartbeat.twin if heartbeat else "",
    )


def _load(member: Member) -> dict[str, Any]:
    heartbeat = member.heartbeat
    if heartbeat is None:
        return {}
    return {
        "cpu_percent": heartbeat.cpu_percent,
        "memory_used_bytes": heartbeat.memory_used_bytes,
        "done": heartbeat.done,
        "failed": heartbeat.failed,
        "rates": {kind: {"mean_s": mean_s, "tasks": tasks} for kind, (mean_s, tasks) in heartbeat.rates.items()},
    }
