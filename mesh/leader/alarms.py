"""Alarms before a limit is reached: levels of the mesh, streams that fill up. Pure; the leader evaluates them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mesh import limits, subjects
from mesh.config import MeshConfig
from mesh.lanes import Lane, is_open
from mesh.membership.member import ALIVE, REGISTERED, Member

if TYPE_CHECKING:
    from mesh.bus.streams import StreamUsage

#: stream -> (its name for people, the consequence when it is full)
_FILLING = {
    subjects.WORK: ("the queue", "submissions will be refused (503)"),
    subjects.LATER: ("the delayed work", "delayed submissions will be refused (503)"),
    subjects.TASKS: ("the store of results", "the oldest results are removed early"),
    subjects.DEAD: ("the store of dead letters", "the oldest are removed early: replay or remove them"),
    f"KV_{subjects.KV_CLAIMS}": ("the store of idempotency keys", "submissions with a key will be refused (507)"),
    f"KV_{subjects.KV_NODES}": ("the store of node records", "nodes can't join or tell of changes"),
    f"KV_{subjects.KV_POOLS}": ("the store of requirements", "work with new requirements will be refused"),
    f"KV_{subjects.KV_BLOB_REFS}": ("the store of references to blobs", "work on blobs will be refused"),
    f"KV_{subjects.KV_CHECKPOINTS}": ("the store of checkpoint records", "no further checkpoints are stored"),
    f"KV_{subjects.KV_SCALING}": ("the store of the scaler", "it orders no nodes"),
    f"KV_{subjects.KV_BENCH}": ("the store of benchmark outcomes", "no further outcomes are stored"),
    f"KV_{subjects.KV_MESH}": ("the store of the mesh's own records", "bus servers can't be replaced"),
    f"OBJ_{subjects.BLOBS}": ("the blob store", "uploads will be refused (507)"),
    f"OBJ_{subjects.BLOBS_KEPT}": ("the store of kept blobs", "uploads with `keep` will be refused (507)"),
}


def levels(lanes: Iterable[Lane], members: Iterable[Member]) -> dict[str, int]:
    """The levels of the mesh that have a limit: see `mesh/limits.py`."""
    members = list(members)
    registered = [member.state == REGISTERED for member in members]
    return {
        "regions": len({member.record.region for member in members if member.state in ALIVE} - {""}),
        "lanes": sum(not is_open(pool) for _, pool, _ in lanes),
        "nodes": registered.count(False),
        "registered_nodes": registered.count(True),
    }


def evaluate(current: Mapping[str, int], usages: Iterable[StreamUsage], config: MeshConfig) -> dict[str, str]:
    """The alarms: stable name -> a sentence with the consequence and, where possible, the remedy. `current`: levels."""
    found = limits.alarms(current, config.limits)
    for usage in usages:
        # The server can't limit delayed work (see mesh/bus/streams.py); the submitters enforce this limit.
        max_bytes = config.later_max_bytes if usage.stream == subjects.LATER else usage.max_bytes
        if usage.stream not in _FILLING or max_bytes <= 0:
            continue
        share = usage.size_bytes / max_bytes
        if share >= limits.ALARM_SHARE:
            name, consequence = _FILLING[usage.stream]
            found[usage.stream] = (
                f"{name.capitalize()} is {share:.0%} full ({_mib(usage.size_bytes)} of {_mib(max_bytes)} MiB): "
                f"when it is full, {consequence}."
            )
    return found


def new_alarms(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The names of alarms that were not raised before, however their figures change: each is reported once."""
    return [name for name in now if name not in before]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 1_048_576:,.0f}"
