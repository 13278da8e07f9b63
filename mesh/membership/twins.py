"""Two processes with one node id: a cloned machine, or a copied data directory. Which one goes on. Pure.

Each process claims its identity on the bus. One that hears the claim of another process with its id compares both
claims; exactly one goes on, and both sides find the same one, because the order is of facts that both claims carry. It
is the order in which the processes wrote their first node record, as the bus numbered them: no clock plays a part. A
process that only starts has no number yet and yields. Two copies of one running process have the same number; then the
one that kept its connection goes on.

A node that restarts is no twin of itself: its predecessor has ended, and does not answer. One whose address changes is
the same process, and knows its own claims.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesh.coordination import IdentityClaim
from mesh.membership.member import Member

#: Stands for the number of a process that has none yet.
_LAST = 1 << 63
#: After a new connection, claims of the one before may still be on their way for this long, seconds.
UNDER_WAY_S = 10.0


def goes_on(mine: IdentityClaim, other: IdentityClaim) -> bool:
    """Whether the process of `mine` goes on and that of `other` stops. Of two claims exactly one goes on."""
    return _order(mine) < _order(other)


def _order(claim: IdentityClaim) -> tuple[int, str, int, str]:
    return claim.ticket or _LAST, claim.incarnation, claim.connections, claim.session


def is_own(claim: IdentityClaim, session: str, former: str, switched_ago_s: float) -> bool:
    """Whether a process hears its own claim. `former`: its session before the present one, `switched_ago_s` ago."""
    return claim.session == session or (claim.session == former and switched_ago_s < UNDER_WAY_S)


def machine_of(claim: IdentityClaim) -> str:
    """The machine of a process, for people: `office-7 (10.0.0.4, process 812)`."""
    facts = [*claim.addresses[:1], *([f"process {claim.pid}"] if claim.pid else [])]
    name = "".join(filter(str.isprintable, claim.name))[:64] or "a machine"
    return f"{name} ({', '.join(facts)})" if facts else name


def likely_cause(mine: IdentityClaim, other: IdentityClaim) -> str:
    """How two processes came to share an identity, as far as their machines tell."""
    if mine.boot_id and mine.boot_id == other.boot_id:
        return "its data directory was copied on the same machine"
    if mine.machine_id and mine.machine_id == other.machine_id:
        return "its machine was cloned"
    return "its data directory was copied to another machine"


def refusal(mine: IdentityClaim, other: IdentityClaim, data: str) -> str:
    """Why the process of `mine` stops, and what to do. `data`: its data directory."""
    return (
        f"The node {mine.node} runs on {machine_of(other)} already: {likely_cause(mine, other)}. "
        f"Start this one with an empty --data, so that it gets an id of its own ({data} stays as it is)."
    )


def alarms_of(members: Iterable[Member]) -> dict[str, str]:
    """The alarms about twins, as the nodes that go on report them: stable name -> a sentence."""
    return {
        f"twin-{member.record.id}": alarm(member.record.id, member.record.name, member.heartbeat.twin)
        for member in members
        if member.heartbeat is not None and member.heartbeat.twin
    }


def alarm(node: str, name: str, twin: str) -> str:
    """The alarm for the users of a mesh in which the node's identity was used twice. `twin`: the other machine."""
    return (
        f"Two machines ran as the node {node}: {name} goes on, {twin} was told to stop. It has a copy of the data "
        "directory: start it with an empty --data."
    )
