"""What a message means in the mesh it is moved to: its lane, its remaining lifetime, its schedule. Pure.

Two meshes have two clocks. A message keeps the seconds that it has left, never the time at which they end.
"""

from __future__ import annotations

from mesh.bus import reserved
from mesh.bus.replies import unix_seconds
from mesh.lanes import Lane

#: What is left of the time to expire of a task that has expired in the source, seconds: 0 would mean "never".
EXPIRED_S = 1e-3


def schedule_shifted(schedule: str, by_s: float) -> str:
    """A schedule `@at <time>` for a server whose clock is ahead by `by_s` seconds; any other one unchanged. Pure."""
    moment = reserved.moment_of(schedule)
    return reserved.at_schedule(unix_seconds(moment) + by_s) if moment else schedule


def left_s(expires_s: float, waited_s: float) -> float:
    """What is left of `expires_s` after `waited_s` seconds in a lane. Pure."""
    return max(EXPIRED_S, expires_s - max(0.0, waited_s))


def lane_of(subject: str) -> Lane | None:
    """The lane of `work.<kind>.<pool>.<urgency>.<id>`; None for an ingress message. Pure."""
    parts = subject.split(".")
    return (parts[1], parts[2], parts[3]) if len(parts) == 5 else None
