"""Whether a bus server whose disk hangs is suspended, so that the others elect leaders, and when it resumes. Pure.

A server whose disk hangs keeps the leadership of every Raft group in which it has nothing to write, and loses that of
the others one by one, each after an election time-out that begins with the first write. So its own node ends the
process, where the others can go on without it. `hang_watch.py` acts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: A server is suspended when its disk has not finished a write for this long, seconds.
SUSPEND_AFTER_S = 3.0
#: Another disk counts as working when it finished a write that began this much later than the one that hangs, seconds:
#: disks on one storage system may hang a moment apart.
MARGIN_S = 1.0
#: How long the disk must work before a suspended server resumes, seconds: after the first suspension, the second …
#: A disk that keeps hanging must not disturb the leadership each time.
REST_S = (2.0, 10.0, 30.0, 60.0)
#: Suspensions longer ago than this are forgotten, seconds.
FORGET_S = 600.0


@dataclass(frozen=True)
class PeerState:
    """Another bus server, as it and its node answered just now."""

    serves: bool = False
    """Whether its JetStream answers as a member of the meta group."""
    group_size: int = 0
    """The size of that group, as it sees it."""
    wrote_ago_s: float = math.inf
    """How long ago the last write that its disk finished began; infinite when its node did not answer."""


def reason_not_to_suspend(hangs_s: float, peers: Iterable[PeerState]) -> str:
    """Why the server is not suspended, for people; "" when it is.

    `hangs_s`: how long its disk had not finished a write when the peers were asked. Only peers whose disk has finished
    a later write count: where all servers share one storage, none may be suspended.
    """
    peers = tuple(peers)
    if hangs_s < SUSPEND_AFTER_S:
        return f"the disk has not finished a write for {hangs_s:.1f} s only"
    members = max([len(peers) + 1, *(peer.group_size for peer in peers)])
    storing = sum(peer.serves and peer.wrote_ago_s < hangs_s - MARGIN_S for peer in peers)
    return "" if storing * 2 > members else f"{storing} other of {members} bus servers can be seen to store"


def rest_s(suspended_at: Sequence[float], now: float) -> float:
    """How long the disk of a suspended server must work before it resumes; the times are monotonic seconds."""
    recent = sum(now - at < FORGET_S for at in suspended_at)
    return REST_S[min(recent, len(REST_S)) - 1] if recent else 0.0
