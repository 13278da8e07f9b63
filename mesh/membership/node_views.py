"""A member of the mesh as people and programs are shown it. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from mesh.scheduling.placement import Member
from mesh.views import NodeView


def node_view(member: Member, last_seen_s: float, is_master: bool) -> NodeView:
    """`member` as a NodeView; `last_seen_s`: seconds since its last heartbeat, -1 when none was heard."""
    record, beat = member.record, member.beat
    return NodeView(
        id=record.id,
        name=record.name,
        state=member.state,
        slots=record.slots,
        running=beat.running if beat else 0,
        queued=beat.queued if beat else 0,
        load=_load(member),
        capabilities=msgspec.to_builtins(record.capabilities),
        labels=dict(record.labels),
        region=record.region,
        api=record.api,
        host=record.host,
        hosts_bus=record.hosts_bus,
        master=is_master,
        version=record.version,
        last_seen_s=round(last_seen_s, 3),
    )


def _load(member: Member) -> dict[str, Any]:
    beat = member.beat
    if beat is None:
        return {}
    return {
        "cpu_percent": beat.cpu_percent,
        "memory_used_bytes": beat.memory_used_bytes,
        "done": beat.done,
        "failed": beat.failed,
        "rates": {kind: {"mean_s": mean_s, "tasks": tasks} for kind, (mean_s, tasks) in beat.rates.items()},
    }
