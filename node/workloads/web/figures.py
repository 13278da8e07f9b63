"""All figures of a load test, from one record of what happened, so that no two of them contradict each other (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from node.workloads.web import plan

#: The CPU time of a shorter measurement says nothing about saturation, seconds.
SHORTEST_S = 0.1


@dataclass(frozen=True)
class Record:
    """What happened to the requests of one generator in the measurement.

    With a rate or a number of requests these are the requests that were due in it, each counted once: in `right`,
    `right_after` or `errors`. Else they are those that ended after its start.
    """

    right: int
    """Correct responses before the end of the measurement."""
    right_after: int
    """Correct responses after it."""
    wrong: int
    """Wrong responses, warm-up included."""
    errors: dict[str, int]
    unsent: int
    """Requests that were due and had not been sent at the end of the measurement."""
    queued: int
    """Requests that waited for a connection."""
    measured_s: float
    sent_bytes: int
    read_bytes: int
    cpu_s: float
    """CPU time from the start of the measurement to its end, or to the last response if that came first."""
    waited_s: float
    """How long the process waited for a processor in that time."""
    watched_s: float
    """How long that time was."""

    @property
    def busy_share(self) -> float:
        """The share of the time in which the process needed a processor, 0 to 1; 0 when the time was too short."""
        if self.watched_s < SHORTEST_S:
            return 0.0
        return max(0.0, min(1.0, (self.cpu_s + self.waited_s) / self.watched_s))


def record_of(part: dict[str, Any]) -> Record:
    """The record in a generator's message, which also holds histograms."""
    return Record(**{field.name: part[field.name] for field in fields(Record)})


def figures(records: Sequence[Record], seconds: float, late_p99_ms: float | None, is_open: bool) -> dict[str, Any]:
    """The figures of the generators together. `seconds`: the duration that the payload names.

    requests_per_s is requests / seconds of the result. In open mode offered_per_s x the payload's seconds is requests +
    requests_after_the_end + error_count, and `saturated` says whether fewer requests could be sent than were due.
    """
    errors: Counter[str] = Counter()
    for record in records:
        errors.update(record.errors)
    right, after = sum(record.right for record in records), sum(record.right_after for record in records)
    measured_s = round(max((record.measured_s for record in records), default=0.0), 6)
    due = right + after + errors.total()
    unsent = sum(record.unsent for record in records) if is_open else 0
    shares = [round(record.busy_share, 3) for record in records]
    found: dict[str, Any] = {
        "seconds": measured_s,
        "requests": right,
        "requests_after_the_end": after,
        "requests_per_s": round(right / measured_s, 1) if measured_s else 0.0,
        "errors": dict(errors.most_common()),
        "error_count": errors.total(),
        "sent_bytes": sum(record.sent_bytes for record in records),
        "read_bytes": sum(record.read_bytes for record in records),
    }
    generator = {
        "processes": len(records),
        "cpu_s": round(sum(record.cpu_s for record in records), 3),
        "busy_share": max(shares, default=0.0),
        "saturated": max(shares, default=0.0) > plan.BUSY_SHARE or plan.is_behind(unsent, due),
        "note": plan.assess(shares, late_p99_ms, unsent, due),
    }
    if is_open:
        found |= {
            "offered_per_s": round(due / seconds, 1) if seconds else 0.0,
            "waited_for_a_connection": sum(record.queued for record in records),
        }
    return found | {"generator": generator}
