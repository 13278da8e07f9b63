"""Who founds the mesh, when several machines start and none of them finds one. Pure.

Everyone without a mesh announces a candidacy and names in it the lowest id it knows of (its own, or that of
another: then it "supports" that one and won't found). After `discovery_wait_s` the candidate that knows of no
lower id founds, if everyone it knows of supports it. That last condition closes the gap which "wait, then the
lowest founds" leaves open: a high id that started earlier may be founding already when a low id gives itself
permission. Whoever does not support me is either about to say that it founds, or can't hear me; so after two
more waits I go on without it.

Promise: if every announcement reaches every living node within `discovery_wait_s`, exactly one founds. Not
promised: anything when the network is cut in two while it starts (then there are two meshes).
Nobody compares clocks: all times are the reader's own monotonic seconds.

Whoever is waited for gets a limited patience, counted from when this node began to wait for it. (Counting it
from when each was first heard, as an earlier version did, let all who had waited for the same dead founder
give each other up at once, and found.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mesh.config import MeshConfig
from mesh.discovery.announcement import CANDIDATE, FOUNDING, MEMBER, Announcement, Sighting

#: Founding takes 1 to 7 s; a founder that has said so for longer than this without a mesh has failed.
FOUNDING_PATIENCE_S = 15.0
#: How long a node that remembers a mesh looks for that one, before it joins another of the same name.
REMEMBERED_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Me:
    """The node that decides."""

    node_id: str
    mesh_name: str
    key_fingerprint: str = ""
    mesh_id: str = ""
    """The mesh this node remembers on disk; empty when it never was in one."""


@dataclass(frozen=True)
class Found:
    """Found the mesh."""


@dataclass(frozen=True)
class Join:
    """Join the mesh behind these addresses (hints: any of them may be dead)."""

    urls: tuple[str, ...]
    mesh_id: str = ""
    node_id: str = ""
    """Who announced it."""


@dataclass(frozen=True)
class Wait:
    """Look again after `seconds`, or when something new is heard."""

    seconds: float
    why: str
    supports: str = ""
    """What to say in the own announcement."""


@dataclass(frozen=True)
class Memory:
    """What one decision leaves for the next."""

    started_at: float
    """When this node began to look."""
    waits_for: tuple[str, str] = ("", "")
    """(node id, role) of the one it lets go first; empty when none."""
    waits_since: float = 0.0
    given_up: frozenset[tuple[str, str]] = frozenset()
    """Those whose patience is used up, in the role they had."""


Step = Found | Join | Wait


def decide(
    me: Me,
    seen: Iterable[Sighting],
    memory: Memory,
    now: float,
    config: MeshConfig,
    unreachable: frozenset[str] = frozenset(),
) -> tuple[Step, Memory]:
    """What to do at `now`, and the memory for the next call (the first one is `Memory(started_at=now)`).

    `unreachable` holds the URLs that did not answer when dialled. A mesh that is announced but can't be
    reached is never a reason to found another one beside it.
    """
    others = [
        sighting
        for sighting in seen
        if sighting.announcement.mesh_name == me.mesh_name
        and sighting.announcement.key_fingerprint == me.key_fingerprint
        and sighting.announcement.node_id != me.node_id
    ]
    members = [sighting.announcement for sighting in others if sighting.announcement.role == MEMBER]
    step = (
        _join(me, others, memory, now, unreachable)
        or _wait_for_remembered(me, members, memory, now)
        or _wait_for_unreachable(me, members)
    )
    if step:
        blocker = ("", MEMBER) if isinstance(step, Wait) else ("", "")
        return step, replace(memory, waits_for=blocker, waits_since=now)
    memory = _renew(me, others, memory, now, config.discovery_wait_s)
    name, role = memory.waits_for
    if name:
        why = "is founding the mesh" if role == FOUNDING else "goes first"
        left_s = memory.waits_since + _patience_s(role, config.discovery_wait_s) - now
        return Wait(max(0.01, min(1.0, left_s)), f"Node {name} {why}; joining it then.", name), memory
    return _stand(me, _rivals(others, memory), memory.started_at, now, config.discovery_wait_s), memory


def _join(me: Me, others: list[Sighting], memory: Memory, now: float, unreachable: frozenset[str]) -> Join | None:
    """A living mesh: the one this node remembers, else (after a while, if it remembers one) the lowest id."""
    meshes: dict[str, list[Sighting]] = {}
    for sighting in others:
        said = sighting.announcement
        if said.role == MEMBER and set(said.urls) - unreachable:
            meshes.setdefault(said.mesh_id, []).append(sighting)
    if me.mesh_id in meshes:
        wanted = me.mesh_id
    elif not meshes or (me.mesh_id and now - memory.started_at < REMEMBERED_PATIENCE_S):
        return None
    else:
        wanted = min(meshes)
    announcers = sorted(meshes[wanted], key=lambda one: (-one.heard_at, one.announcement.node_id))
    urls = dict.fromkeys(url for sighting in announcers for url in sighting.announcement.urls)
    return Join(tuple(url for url in urls if url not in unreachable), wanted, announcers[0].announcement.node_id)


def _wait_for_remembered(me: Me, members: list[Announcement], memory: Memory, now: float) -> Wait | None:
    """A node that was in a mesh never founds another by accident."""
    if not me.mesh_id:
        return None
    left_s = REMEMBERED_PATIENCE_S - (now - memory.started_at)
    elsewhere = [said for said in members if said.mesh_id != me.mesh_id]
    if elsewhere and left_s > 0:
        return Wait(
            max(0.1, min(5.0, left_s)),
            f"This node belongs to mesh {me.mesh_id}, which does not answer; node {elsewhere[0].node_id} "
            f"announces another mesh of the same name, which is joined in {REMEMBERED_PATIENCE_S:.0f} s.",
        )
    return Wait(
        5.0,
        f"This node belongs to mesh {me.mesh_id} ({me.mesh_name}) and waits for it; start one of that mesh's "
        "other nodes, name one with --join, or start with an empty --data to found a new mesh.",
    )


def _wait_for_unreachable(me: Me, members: list[Announcement]) -> Wait | None:
    if not members:
        return None
    said = members[0]
    return Wait(
        2.0,
        f"Node {said.node_id} announces mesh {said.mesh_name} at {', '.join(said.urls[:3]) or 'no address'}, "
        "but nothing answers there; it may have just stopped, or a firewall is in the way (queztl doctor).",
        me.node_id,
    )


def _patience_s(role: str, wait_s: float) -> float:
    # a living candidate that stands founds within three waits of its start, and tells within a fourth
    return FOUNDING_PATIENCE_S if role == FOUNDING else 5 * wait_s


def _renew(me: Me, others: list[Sighting], memory: Memory, now: float, wait_s: float) -> Memory:
    """Whom to wait for now, and since when."""
    given_up = memory.given_up
    if memory.waits_for[0] and now - memory.waits_since >= _patience_s(memory.waits_for[1], wait_s):
        given_up |= {memory.waits_for}
    said = {(one.announcement.node_id, one.announcement.role) for one in others} - given_up
    founders = sorted(who for who in said if who[1] == FOUNDING)
    lower = sorted(who for who in said if who[1] == CANDIDATE and who[0] < me.node_id)
    first = next(iter(founders + lower), ("", ""))
    if first == memory.waits_for:
        return memory
    return Memory(memory.started_at, first, now, given_up)


def _rivals(others: list[Sighting], memory: Memory) -> list[Sighting]:
    return [
        one
        for one in others
        if one.announcement.role == CANDIDATE and (one.announcement.node_id, CANDIDATE) not in memory.given_up
    ]


def _stand(me: Me, rivals: list[Sighting], started_at: float, now: float, wait_s: float) -> Found | Wait:
    """The candidacy itself, when nobody else goes first; see the top of this file."""
    if now - started_at < wait_s:
        left_s = wait_s - (now - started_at)
        return Wait(left_s, f"Looking {wait_s:.1f} s for others who start now.", me.node_id)
    # supporting a third one, which I hear nothing of, is as good as founding by itself
    waits = [
        2 * wait_s - (now - max(rival.since, started_at))
        for rival in rivals
        if rival.announcement.supports != me.node_id
    ]
    if any(left_s > 0 for left_s in waits):
        return Wait(max(waits), "Others start at the same time; waiting until they agree.", me.node_id)
    return Found()
