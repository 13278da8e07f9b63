"""What is given back on behalf of the dead: first the kick, then each announced delivery exactly once.

A NAK is not fenced by the server: a repeated or late one hits the next holder. So a delivery is named by
(stream sequence, delivery count), remembered once given back, and left alone when somebody living announced a
later delivery of the same message. `mesh/leader/reclaimer.py` is the loop; only the master runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mesh.membership.failure_detector import Connection
from mesh.messages import Held

#: A connection that is still there this long after its kick is kicked again, seconds.
KICK_AGAIN_S = 2.0
#: How long a delivery given back is remembered, seconds: longer than any announcement can be under way.
REMEMBER_S = 900.0


@dataclass(frozen=True)
class Dead:
    """An incarnation that is gone (never one merely suspect), and what it left behind."""

    node: str
    incarnation: str
    held: tuple[Held, ...] = ()
    connections: frozenset[Connection] = frozenset()
    """Those the bus still keeps open: a frozen node's pull swallows work until it is kicked."""


@dataclass(frozen=True)
class Kick:
    """Close a dead node's connection."""

    node: str
    server_id: str
    client_id: int


@dataclass(frozen=True)
class GiveBack:
    """NAK a delivery in its dead holder's name."""

    node: str
    incarnation: str
    reply: str
    stream_seq: int
    delivered: int


@dataclass(frozen=True)
class Memory:
    """What was done already; times are monotonic."""

    kicked: Mapping[Connection, float] = field(default_factory=dict)
    returned: Mapping[tuple[int, int], float] = field(default_factory=dict)


def plan_reclaim(
    dead: Iterable[Dead], elsewhere: Mapping[int, int], memory: Memory, now: float
) -> tuple[list[Kick | GiveBack], Memory]:
    """The actions, in the order they must be done, and the memory for the next time.

    `elsewhere`: stream sequence -> highest delivery count that a living node announces.
    """
    kicks: list[Kick | GiveBack] = []
    backs: list[Kick | GiveBack] = []
    kicked = {one: at for one, at in memory.kicked.items() if now - at < KICK_AGAIN_S}
    returned: dict[tuple[int, int], float] = {}
    for one in dead:
        for connection in sorted(one.connections):
            if connection not in kicked:
                kicked[connection] = now
                kicks.append(Kick(one.node, *connection))
        for held in one.held:
            delivery = (held.stream_seq, held.delivered)
            if delivery in memory.returned or delivery in returned:
                continue
            if elsewhere.get(held.stream_seq, 0) >= held.delivered:
                continue
            returned[delivery] = now
            backs.append(GiveBack(one.node, one.incarnation, held.reply, held.stream_seq, held.delivered))
    if not returned and all(now - at < REMEMBER_S for at in memory.returned.values()):
        kept = memory.returned
    else:
        kept = {key: at for key, at in memory.returned.items() if now - at < REMEMBER_S} | returned
    return kicks + backs, Memory(kicked, kept)
