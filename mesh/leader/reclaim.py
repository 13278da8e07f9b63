"""Reclaiming the deliveries of dead nodes: first their connections are closed, then each delivery is NAKed once. Pure.

The server does not fence a NAK: a repeated or late one hits the next holder. So a delivery is identified by (stream
sequence, delivery count), remembered once it was reclaimed, and left alone when a living node has announced a later
delivery of the same message. `mesh/leader/reclaimer.py` is the loop; only the leader runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.membership.failure_detector import Connection
from mesh.messages import Held

#: A connection that is still open this long after it was closed by force is closed again, seconds.
KICK_AGAIN_S = 2.0
#: How long a reclaimed delivery is remembered, seconds: longer than any announcement can be in flight.
REMEMBER_S = 900.0


@dataclass(frozen=True)
class DeadNode:
    """An incarnation that is gone (not only suspect), with the deliveries it held and its open connections."""

    node: str
    incarnation: str
    held: tuple[Held, ...] = ()
    connections: frozenset[Connection] = frozenset()
    """Those that are still open on the bus: pulls of a suspended node take deliveries until they are closed."""


@dataclass(frozen=True)
class Kick:
    """Close a connection of a dead node by force."""

    node: str
    server_id: str
    client_id: int


@dataclass(frozen=True)
class Reclaim:
    """NAK a delivery on behalf of its dead holder."""

    node: str
    incarnation: str
    reply: str
    stream_seq: int
    delivered: int


@dataclass(frozen=True)
class Memory:
    """The actions already taken; times are monotonic."""

    kicked: Mapping[Connection, float] = field(default_factory=dict)
    """Connection -> when it was closed last."""
    reclaimed: Mapping[tuple[int, int], float] = field(default_factory=dict)
    """(stream sequence, delivery count) -> when"""


def plan_reclaim(
    dead: Iterable[DeadNode], elsewhere: Mapping[int, int], memory: Memory, now: float
) -> tuple[list[Kick | Reclaim], Memory]:
    """(the actions in the order in which they must be taken, the memory for the next call).

    `elsewhere`: stream sequence -> the highest delivery count that a living node has announced.
    """
    kicks: list[Kick | Reclaim] = []
    naks: list[Kick | Reclaim] = []
    kicked = {connection: at for connection, at in memory.kicked.items() if now - at < KICK_AGAIN_S}
    reclaimed: dict[tuple[int, int], float] = {}
    for node in dead:
        for connection in sorted(node.connections):
            if connection not in kicked:
                kicked[connection] = now
                kicks.append(Kick(node.node, *connection))
        for held in node.held:
            delivery = (held.stream_seq, held.delivered)
            if delivery in memory.reclaimed or delivery in reclaimed:
                continue
            if elsewhere.get(held.stream_seq, 0) >= held.delivered:
                continue
            reclaimed[delivery] = now
            naks.append(Reclaim(node.node, node.incarnation, held.reply, held.stream_seq, held.delivered))
    if not reclaimed and all(now - at < REMEMBER_S for at in memory.reclaimed.values()):
        kept = memory.reclaimed
    else:
        kept = {key: at for key, at in memory.reclaimed.items() if now - at < REMEMBER_S} | reclaimed
    return kicks + naks, Memory(kicked, kept)
