"""Failure detection: one state per node from heartbeats, node records and the connection events of the bus. Pure.

All times are on the observer's monotonic clock; clocks of other machines are never used. Three rules prevent false
positives: an observer that was suspended extends all deadlines by that time; one that does not receive even its own
heartbeats declares nobody gone; and when most of the mesh falls silent at once, it waits twice as long. A closed
connection is only a suspicion until the grace period is over. `mesh/membership/registry.py` is the loop.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from mesh.config import MeshConfig
from mesh.membership.member import ALIVE, DRAINING, GONE, LEFT, REGISTERED, SUSPECT, UP
from mesh.messages import Heartbeat, NodeRecord

#: The record of a node that is gone for this long is deleted, seconds.
FORGET_GONE_S = 3600.0
#: The record of a machine that registered and did not connect within this time is deleted, seconds.
FORGET_REGISTERED_S = 600.0

#: A heartbeat with a lower number than the last one is a late one, if it is lower by less than this. A process counts
#: from 1, so a larger step back means that the last number was not its own.
LATE_NUMBERS = 4
#: Heartbeats of a node that has left may still arrive within this time, seconds; later ones prove that it is back.
LEAVING_S = 3.0

#: (server id, client id): a connection, as the bus identifies it.
Connection = tuple[str, int]


class PeerState(Struct, frozen=True):
    """What one observer knows of the current incarnation of one node. Times are on its monotonic clock."""

    node: str
    incarnation: str = ""
    recorded: bool = False
    """Whether a node record names this incarnation. Then heartbeats and events of other incarnations are ignored."""
    registered: bool = False
    """Whether the record was made for a machine that has not connected yet."""
    reported_state: str = UP
    """The state that the node reports itself: up, draining or left."""
    left_at: float = 0.0
    """When it was first heard that it has left; otherwise of no meaning."""
    silent_from: float = 0.0
    """Start of the current silence."""
    heard_at: float = -1.0
    """Time of its last heartbeat; -1 when none was received."""
    seq: int = -1
    """Sequence number of its last heartbeat."""
    interval_s: float = 0.0
    """The heartbeat interval that it reports."""
    connections: frozenset[Connection] = frozenset()
    """Its connections that are known to be open."""
    disconnected_at: float | None = None
    """When its last known connection closed; None while one is open, or none is known."""


def recorded(seen: PeerState | None, record: NodeRecord, now: float) -> PeerState:
    """The state after reading a node record; a record of another incarnation starts a new one."""
    if seen is None or seen.incarnation != record.incarnation:
        return PeerState(
            record.id,
            record.incarnation,
            recorded=True,
            registered=bool(record.registered_by) and not record.incarnation,
            reported_state=record.state,
            left_at=now,
            silent_from=now,
        )
    seen = _reported(seen, record.state, now)
    return replace(seen, recorded=True, registered=seen.registered and bool(record.registered_by))


def _reported(seen: PeerState, state: str, now: float) -> PeerState:
    """The state after the node reported one itself: one that has left stays so, unless it reports much later."""
    if seen.reported_state != LEFT:
        return replace(seen, reported_state=state, left_at=now if state == LEFT else seen.left_at)
    return replace(seen, reported_state=state) if now - seen.left_at > LEAVING_S else seen


def heard(seen: PeerState | None, heartbeat: Heartbeat, grace_s: float, now: float) -> PeerState | None:
    """The state after a heartbeat; None when the heartbeat is of another incarnation than the recorded one.

    A heartbeat well after a disconnect proves that the node is alive; one right after it may have been in flight. A
    heartbeat with state "gone" is the leader's death notice for a node whose deliveries it is about to reclaim.
    """
    if heartbeat.state == GONE:
        return reported_dead(seen, heartbeat.incarnation, grace_s, now)
    if seen is None or (seen.incarnation != heartbeat.incarnation and not seen.recorded):
        seen = PeerState(heartbeat.node, heartbeat.incarnation, silent_from=now)
    elif seen.incarnation != heartbeat.incarnation:
        return None
    if 0 <= seen.seq - heartbeat.seq < LATE_NUMBERS:
        return seen
    alive = seen.disconnected_at is None or now - seen.disconnected_at > grace_s / 2
    return replace(
        _reported(seen, heartbeat.state, now),
        registered=False,
        silent_from=now,
        heard_at=now,
        seq=heartbeat.seq,
        interval_s=heartbeat.interval_s,
        disconnected_at=None if alive else seen.disconnected_at,
    )


def connected(seen: PeerState, incarnation: str, connection: Connection) -> PeerState:
    """The state after the bus reported that a connection of `incarnation` was opened."""
    if incarnation != seen.incarnation:
        return seen
    return replace(seen, connections=seen.connections | {connection}, disconnected_at=None)


def disconnected(
    seen: PeerState, incarnation: str, connection: Connection, now: float, trusted: bool = True
) -> PeerState:
    """The state after the bus reported that a connection of `incarnation` was closed: suspect, if it was the last one.

    `trusted` is False while a bus server restarts: then the connection only no longer counts as open.
    """
    if incarnation != seen.incarnation:
        return seen
    left = seen.connections - {connection}
    if left or seen.disconnected_at is not None or not trusted:
        return replace(seen, connections=left)
    return replace(seen, connections=left, disconnected_at=now)


def reported_dead(seen: PeerState | None, incarnation: str, grace_s: float, now: float) -> PeerState | None:
    """The state after a death notice for `incarnation`: it is gone until a heartbeat of the node itself arrives."""
    if seen is None or seen.incarnation != incarnation:
        return None
    return replace(seen, disconnected_at=now - 2 * grace_s)


def extended(seen: PeerState, by_s: float) -> PeerState:
    """All deadlines extended by the time for which the observer itself was suspended, seconds."""
    disconnected_at = None if seen.disconnected_at is None else seen.disconnected_at + by_s
    return replace(seen, silent_from=seen.silent_from + by_s, disconnected_at=disconnected_at)


def grace_restarted(seen: PeerState, now: float) -> PeerState:
    """The state after the bus was unreachable: silence counts from now, and its connection events are void."""
    return replace(seen, silent_from=max(seen.silent_from, now), connections=frozenset(), disconnected_at=None)


def silence_restarted(seen: PeerState, now: float) -> PeerState:
    """The state when no heartbeats could be received until now: silence counts from now."""
    return replace(seen, silent_from=max(seen.silent_from, now))


def is_disconnected(seen: PeerState, config: MeshConfig, now: float) -> bool:
    """Whether its connections stayed closed beyond the grace period."""
    return seen.disconnected_at is not None and now - seen.disconnected_at >= config.disconnect_grace_s


def cause(seen: PeerState, config: MeshConfig, now: float) -> str:
    """Why a node that is gone counts as gone, for people."""
    return "its connection closed" if is_disconnected(seen, config, now) else "no heartbeat came"


def silence_missed(seen: PeerState, config: MeshConfig, now: float) -> float:
    """The number of heartbeats missed, at the longer of the mesh's and the node's own interval."""
    return (now - seen.silent_from) / max(config.heartbeat_interval_s, seen.interval_s)


def verdict(seen: PeerState, config: MeshConfig, now: float) -> str:
    """The state of this node, judged alone: up, suspect, gone, draining, left or registered."""
    if seen.reported_state == LEFT:
        return LEFT
    if seen.registered:
        return REGISTERED
    missed = silence_missed(seen, config, now)
    if is_disconnected(seen, config, now) or missed >= config.gone_after_missed:
        return GONE
    if seen.disconnected_at is not None or missed >= config.suspect_after_missed:
        return SUSPECT
    return seen.reported_state if seen.reported_state == DRAINING else UP


def overdue(states: Mapping[str, str], since: Mapping[str, float], now: float) -> tuple[list[str], dict[str, float]]:
    """(the nodes whose records should be deleted: left, or gone or only registered for too long; since when they are).

    `since`: the second value of the last call.
    """
    absent = {node: since.get(node, now) for node, state in states.items() if state in (GONE, REGISTERED)}
    left = [node for node, state in states.items() if state == LEFT]
    limits_s = {GONE: FORGET_GONE_S, REGISTERED: FORGET_REGISTERED_S}
    return left + [node for node, at in absent.items() if now - at > limits_s[states[node]]], absent


def verdicts(seen: Mapping[str, PeerState], me: str, config: MeshConfig, now: float) -> dict[str, str]:
    """Node id -> state, with the rules against false positives applied; `me`: the observer's own node id."""
    found = {node: verdict(peer, config, now) for node, peer in seen.items()}
    silent = [
        node
        for node, state in found.items()
        if state == GONE and node != me and not is_disconnected(seen[node], config, now)
    ]
    if not silent:
        return found
    own = seen.get(me)
    deaf = own is not None and own.heard_at >= 0 and silence_missed(own, config, now) >= config.suspect_after_missed
    newly_silent = [node for node in silent if silence_missed(seen[node], config, now) < 2 * config.gone_after_missed]
    alive = sum(1 for node, state in found.items() if state in ALIVE and node != me)
    if deaf:
        return found | dict.fromkeys(silent, SUSPECT)
    if len(newly_silent) > 1 and len(newly_silent) > alive:
        return found | dict.fromkeys(newly_silent, SUSPECT)
    return found
