"""Detects a Raft group whose size is smaller than its member list, and decides how to repair it. Pure.

nats-server derives the quorum from the group size it keeps, not from the member list. The size becomes too small when a
leaderless server counts a server without JetStream as a member ("mixed mode"): the witnesses of earlier versions were
such servers. The wrong size survives restarts and leader changes; nats-server sets it to the number of members whenever
a member is added or removed (tested: 2.15.1).
"""

from __future__ import annotations

from typing import Literal

Repair = Literal["none", "wait", "add", "remove"]


def is_too_small(size: int, members: int) -> bool:
    """Whether the group size is below the number of members; a `size` of 0 is unknown."""
    return 0 < size < members


def repair(size: int, members: int, current: int, spare: bool) -> Repair:
    """The repair that is safe now; "none" when nothing is wrong or nothing may be done yet.

    `current`: how many members are connected and up to date; `spare`: whether a node is free to run one more server.
    """
    if not is_too_small(size, members):
        return "none"
    if current * 2 <= members:
        return "wait"  # only the wrong quorum keeps the group available: a correct one would stop it at once
    if current < members:
        return "none"  # absent members return or are replaced, and a replacement repairs the size too
    if spare:
        return "add"
    # Removing a member costs redundancy: only when the quorum is really below a majority of the members.
    return "remove" if size // 2 < members // 2 else "none"


def describe(leader: str, size: int, members: int) -> str:
    """The state for people; "" when nothing is wrong. `leader`: its node."""
    if not is_too_small(size, members):
        return ""
    return f"{leader} leads the bus servers with a group size of {size} for {members} members"
