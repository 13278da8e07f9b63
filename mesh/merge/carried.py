"""What a message means in the mesh it is moved to: its lane, its remaining lifetime, its schedule. Pure.

Two meshes have two clocks. A message keeps the seconds that it has left, never the time at which they end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mesh.bus.replies import unix_seconds
from mesh.lanes import Lane
from mesh.tasks.submitter import at_schedule

SCHEDULE = "Nats-Schedule"
#: What is left of the time to expire of a task that has expired in the source, seconds: 0 would mean "never".
EXPIRED_S = 1e-3


def ttl_of(headers: Mapping[str, str]) -> float:
    """The lifetime with which a message was stored, seconds; 0: without limit. Pure."""
    text = headers.get("Nats-TTL", "")
    return float(text[:-1]) if text.endswith("s") and text[:-1].isdigit() else 0.0


def schedule_shifted(schedule: str, by_s: float) -> str:
    """A schedule `@at <time>` for a server whose clock is ahead by `by_s` seconds; any other one unchanged. Pure."""
    at = re.fullmatch(r"@at (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)", schedule)
    return at_schedule(unix_seconds(at[1]) + by_s) if at else schedule


def left_s(expires_s: float, waited_s: float) -> float:
    """What is left of `expires_s` after `waited_s` seconds in a lane. Pure."""
    return max(EXPIRED_S, expires_s - max(0.0, waited_s))


def lane_of(subject: str) -> Lane | None:
    """The lane of `work.<kind>.<pool>.<urgency>.<id>`; None for an ingress message. Pure."""
    parts = subject.split(".")
    return (parts[1], parts[2], parts[3]) if len(parts) == 5 else None
