"""Who is alive: folds heartbeats, node records and the bus's own connection events into one word per node.

Everything is measured on the observer's monotonic clock; no clock of another machine counts. Three doubts are
built in: an observer that was late itself gives everybody that much longer; one that does not hear even its
own heartbeats accuses nobody; and when most of the mesh falls silent at once it waits twice as long before it
believes that. A closed connection is only a suspicion until the grace is over. The loop: `mesh/membership/registry.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from mesh.config import MeshConfig
from mesh.membership.member import ALIVE, DRAINING, GONE, LEFT, REGISTERED, SUSPECT, UP
from mesh.messages import Heartbeat, NodeRecord

#: The record of a node gone this long is removed, seconds.
FORGET_GONE_S = 3600.0

#: (server id, client id): one connection, as the bus names it.
Connection = tuple[str, int]


class PeerState(Struct, frozen=True):
    """What one observer knows of one node's present incarnation. Times: the observer's monotonic clock."""

    node: str
    incarnation: str = ""
    recorded: bool = False
    """A node record named this incarnation: beats and events of any other are ignored."""
    registered: bool = False
    """A record made for a machine that has not connected yet."""
    said: str = UP
    """What the node says of itself: up, draining or left."""
    silent_from: float = 0.0
    """From when on its silence counts."""
    heard_at: float = -1.0
    """Its last heartbeat; -1 when none was heard."""
    seq: int = -1
    interval_s: float = 0.0
    connections: frozenset[Connection] = frozenset()
    """Those known to be open."""
    cut_at: float | None = None
    """When its last known connection closed; None when it did not, or came back."""


def recorded(seen: PeerState | None, record: NodeRecord, now: float) -> PeerState:
    """After reading a node record; a record with another incarnation starts afresh."""
    if seen is None or seen.incarnation != record.incarnation:
        return PeerState(
            record.id,
            record.incarnation,
            recorded=True,
            registered=bool(record.registered_by) and not record.incarnation,
            said=record.state,
            silent_from=now,
        )
    said = LEFT if LEFT in (seen.said, record.state) else record.state
    return replace(seen, recorded=True, said=said, registered=seen.registered and bool(record.registered_by))


def heard(seen: PeerState | None, heartbeat: Heartbeat, grace_s: float, now: float) -> PeerState | None:
    """After a heartbeat; None when it is of an incarnation that is not the recorded one.

    A heartbeat well after a cut proves that the node lives on; one right after it may have been under way.
    One that says "gone" is the master's, about a node whose work it is about to give back.
    """
    if heartbeat.state == GONE:
        return reported_dead(seen, heartbeat.incarnation, grace_s, now)
    if seen is None or (seen.incarnation != heartbeat.incarnation and not seen.recorded):
        seen = PeerState(heartbeat.node, heartbeat.incarnation, silent_from=now)
    elif seen.incarnation != heartbeat.incarnation:
        return None
    if heartbeat.seq <= seen.seq:
        return seen
    proven = seen.cut_at is None or now - seen.cut_at > grace_s / 2
    return replace(
        seen,
        said=LEFT if seen.said == LEFT else heartbeat.state,
        registered=False,
        silent_from=now,
        heard_at=now,
        seq=heartbeat.seq,
        interval_s=heartbeat.interval_s,
        cut_at=None if proven else seen.cut_at,
    )


def connected(seen: PeerState, incarnation: str, connection: Connection) -> PeerState:
    """After the bus said that a connection of `incarnation` was opened."""
    if incarnation != seen.incarnation:
        return seen
    return replace(seen, connections=seen.connections | {connection}, cut_at=None)


def disconnected(
    seen: PeerState, incarnation: str, connection: Connection, now: float, believed: bool = True
) -> PeerState:
    """After the bus said that a connection of `incarnation` was closed: a suspicion, if it was the last.

    Not `believed` (a bus server is restarting): it only stops counting as open.
    """
    if incarnation != seen.incarnation:
        return seen
    left = seen.connections - {connection}
    if left or seen.cut_at is not None or not believed:
        return replace(seen, connections=left)
    return replace(seen, connections=left, cut_at=now)


def reported_dead(seen: PeerState | None, incarnation: str, grace_s: float, now: float) -> PeerState | None:
    """After the master said that `incarnation` is gone: believed until the node itself is heard again."""
    if seen is None or seen.incarnation != incarnation:
        return None
    return replace(seen, cut_at=now - 2 * grace_s)


def extended(seen: PeerState, by_s: float) -> PeerState:
    """Every deadline later by the time the observer itself stood still."""
    cut_at = None if seen.cut_at is None else seen.cut_at + by_s
    return replace(seen, silent_from=seen.silent_from + by_s, cut_at=cut_at)


def grace_restarted(seen: PeerState, now: float) -> PeerState:
    """After the bus was away: silence counts from now, and what it said of connections is void."""
    return replace(seen, silent_from=max(seen.silent_from, now), connections=frozenset(), cut_at=None)


def unheard(seen: PeerState, now: float) -> PeerState:
    """Nobody could be heard until now: its silence counts from now."""
    return replace(seen, silent_from=max(seen.silent_from, now))


def is_cut(seen: PeerState, config: MeshConfig, now: float) -> bool:
    """Whether its connection closed and stayed closed past the grace."""
    return seen.cut_at is not None and now - seen.cut_at >= config.disconnect_grace_s


def cause(seen: PeerState, config: MeshConfig, now: float) -> str:
    """Why a gone node is held for gone, for people."""
    return "its connection closed" if is_cut(seen, config, now) else "no heartbeat came"


def silence_missed(seen: PeerState, config: MeshConfig, now: float) -> float:
    """Heartbeats missed so far, at the longer of the mesh's and the node's own interval."""
    return (now - seen.silent_from) / max(config.heartbeat_interval_s, seen.interval_s)


def verdict(seen: PeerState, config: MeshConfig, now: float) -> str:
    """What this node is, taken by itself: up, suspect, gone, draining, left or registered."""
    if seen.said == LEFT:
        return LEFT
    if seen.registered:
        return REGISTERED
    missed = silence_missed(seen, config, now)
    if is_cut(seen, config, now) or missed >= config.gone_after_missed:
        return GONE
    if seen.cut_at is not None or missed >= config.suspect_after_missed:
        return SUSPECT
    return seen.said if seen.said == DRAINING else UP


def overdue(
    states: Mapping[str, str], gone_since: Mapping[str, float], now: float
) -> tuple[list[str], dict[str, float]]:
    """(nodes whose records should go: left, or gone for long; since when each gone one is gone)."""
    since = {node: gone_since.get(node, now) for node, state in states.items() if state == GONE}
    left = [node for node, state in states.items() if state == LEFT]
    return left + [node for node, at in since.items() if now - at > FORGET_GONE_S], since


def verdicts(seen: Mapping[str, PeerState], me: str, config: MeshConfig, now: float) -> dict[str, str]:
    """What every node is, with the observer's doubts about itself: `me` is the observer's own node id."""
    found = {node: verdict(one, config, now) for node, one in seen.items()}
    silent = [
        node for node, state in found.items() if state == GONE and node != me and not is_cut(seen[node], config, now)
    ]
    if not silent:
        return found
    own = seen.get(me)
    deaf = own is not None and own.heard_at >= 0 and silence_missed(own, config, now) >= config.suspect_after_missed
    fresh = [node for node in silent if silence_missed(seen[node], config, now) < 2 * config.gone_after_missed]
    living = sum(1 for node, state in found.items() if state in ALIVE and node != me)
    if deaf:
        return found | dict.fromkeys(silent, SUSPECT)
    if len(fresh) > 1 and len(fresh) > living:
        return found | dict.fromkeys(fresh, SUSPECT)
    return found
