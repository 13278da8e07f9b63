"""Alarms before a limit is reached: too many lanes, streams that fill up. Pure; the leader evaluates them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.config import MeshConfig

if TYPE_CHECKING:
    from mesh.bus.streams import StreamUsage

LANES = "lanes"

#: stream -> (its name for people, the consequence when it is full)
_FILLING = {
    subjects.WORK: ("the queue", "submissions will be refused (503)"),
    subjects.LATER: ("the delayed work", "delayed submissions will be refused (503)"),
    subjects.TASKS: ("the store of results", "the oldest results are removed early"),
    subjects.DEAD: ("the store of dead letters", "the oldest are removed early: replay or remove them"),
    f"KV_{subjects.KV_CLAIMS}": ("the store of idempotency keys", "submissions with a key will be refused (507)"),
    f"OBJ_{subjects.BLOBS}": ("the blob store", "uploads will be refused (507)"),
    f"OBJ_{subjects.BLOBS_KEPT}": ("the store of kept blobs", "uploads with `keep` will be refused (507)"),
}


def evaluate(lanes: int, usages: Iterable[StreamUsage], config: MeshConfig) -> dict[str, str]:
    """The current alarms: stable name -> a sentence with the consequence and, where possible, the remedy."""
    found: dict[str, str] = {}
    if lanes > config.lanes_alarm:
        found[LANES] = f"{lanes} lanes are open, more than {config.lanes_alarm}: use fewer different requirements."
    for usage in usages:
        # The server can't limit delayed work (see mesh/bus/streams.py); the submitters enforce this limit.
        max_bytes = config.later_max_bytes if usage.stream == subjects.LATER else usage.max_bytes
        if usage.stream not in _FILLING or max_bytes <= 0:
            continue
        share = usage.size_bytes / max_bytes
        if share >= config.storage_alarm_share:
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
