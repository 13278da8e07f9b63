"""What is done about copies that do not become whole by themselves: a restart of their server, or a new copy. Pure.

A server whose copies lag has missed something that waiting does not bring back: a write error that nats-server keeps,
JetStream switched off. A copy that differs from the others at the same last sequence has lost messages that Raft counts
as written, in a power cut for example; nats-server never compares copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from mesh.cluster.observed import Server, Stream
from mesh.cluster.steps import MoveStreams, Restart, Scale, Settle, Step

#: A server or copy that lags for longer has its server restarted, seconds.
RESTART_LATE_S = 60.0
#: The same server is not restarted again for this long, seconds.
RESTART_AGAIN_S = 300.0
#: A server that lags for longer counts as lost where another machine can take its place, seconds.
REPLACE_LATE_S = 180.0
#: Copies that differ for longer are repaired, seconds: acknowledgements reach the copies one after the other.
DIFFER_S = 30.0


#: Copies that differ for longer are reported, seconds.
REPORT_DIFFERENCE_S = 10.0


class State(NamedTuple):
    """What one copy of a stream holds."""

    first: int
    last: int
    messages: int


def differing(leader: str, states: Mapping[str, State]) -> frozenset[str]:
    """The servers whose copy of a stream is not like most, or like its leader's where there is no majority.

    `states`: of every copy, by server. Empty as well while the copies are not at the same last sequence.
    """
    if len({state.last for state in states.values()}) != 1 or len(set(states.values())) == 1:
        return frozenset()
    state, count = Counter(states.values()).most_common(1)[0]
    right = state if count * 2 > len(states) else states.get(leader, state)
    return frozenset(server for server, found in states.items() if found != right)


def settle(streams: Iterable[Stream]) -> Step | None:
    """Append an entry after the latest change of members to the Raft log of each stream whose copies are complete.

    A log tells how far it is committed only by its next entry. A copy whose log ends with its own admission does not
    know after a restart that it is a member, and never campaigns (nats-server 2.15.1). If the other copies are lost,
    the stream has no leader for ever, and no rescue helps. The log of an idle stream would stay like that.
    """
    names = tuple(stream.name for stream in streams if not stream.settled and stream.current == stream.members)
    return Settle(names) if names else None


def restart_server(servers: Sequence[Server], late: Sequence[Server]) -> Step | None:
    """The restart of the one server of the group that is late for too long, while all others are current."""
    if len(late) != 1 or not all(server.current for server in servers if server is not late[0]):
        return None
    server = late[0]
    due = server.late_s >= RESTART_LATE_S and server.restarted_s >= RESTART_AGAIN_S
    return Restart(server.node, server.name) if due else None


def restart_for_copies(servers: Sequence[Server], streams: Iterable[Stream]) -> Step | None:
    """The restart of the one server whose copies are late for too long, while all other copies are whole."""
    late = {name for stream in streams for name in stream.members - stream.current}
    overdue = any(stream.behind_s >= RESTART_LATE_S for stream in streams)
    if len(late) != 1 or not overdue or not all(server.current for server in servers):
        return None
    server = next((server for server in servers if server.name in late), None)
    if server is None or server.restarted_s < RESTART_AGAIN_S:
        return None
    return Restart(server.node, server.name)


def repair_copies(streams: Iterable[Stream]) -> Step | None:
    """Make one stream's differing copies anew: it is scaled down to a copy that is like most, then up again."""
    for stream in streams:
        if not stream.differing or stream.differs_s < DIFFER_S or stream.current != stream.members:
            continue
        right = stream.members - stream.differing
        if stream.leader not in right:
            return MoveStreams((stream.name,), min(right)) if right else None
        return Scale((stream.name,), 1)
    return None


def difference(streams: Iterable[Stream]) -> str:
    """Copies that differ, for people; "" when none do."""
    named = sorted(stream.name for stream in streams if stream.differing and stream.differs_s >= REPORT_DIFFERENCE_S)
    return f"{', '.join(named)}: a copy differs from the others and is made anew" if named else ""
