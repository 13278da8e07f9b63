"""Which node creates the mesh, when several machines start and none finds one. Pure.

Every node without a mesh announces itself as candidate, and names the lowest candidate id that it knows: its own, or
that of another node, which it then "supports" instead of creating the mesh itself. After `discovery_wait_s` the
candidate that knows no lower id creates the mesh, if all candidates it knows support it. That last condition is needed:
without it, a higher id that started earlier may be creating a mesh already. A candidate that does not support this node
is either about to announce that it creates the mesh, or can't receive this node's announcements; so after two more
waits this node goes on without it.

If every announcement reaches every living node within `discovery_wait_s`, exactly one node creates the mesh. Nothing is
guaranteed when the network is partitioned during startup; then there may be two meshes. Clocks are never compared: all
times are the local monotonic seconds.

A node waits for another one for a limited time, counted from when it began to wait for it. (Counting from when that one
was first heard, as an earlier version did, let all that had waited for the same dead node give each other up at once.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mesh.config import MeshConfig
from mesh.discovery.announcement import CANDIDATE, FOUNDING, MEMBER, Announcement, Sighting

#: Creating a mesh takes 1 to 7 s; a node that has announced it for longer than this has failed, seconds.
FOUNDING_PATIENCE_S = 15.0
#: How long a node looks for the mesh that it remembers, before it joins another one of the same name, seconds.
REMEMBERED_PATIENCE_S = 30.0


@dataclass(frozen=True)
class LocalNode:
    """The node that decides."""

    node_id: str
    mesh_name: str
    key_fingerprint: str = ""
    mesh_id: str = ""
    """The mesh that this node remembers on disk; empty when it was in none."""


@dataclass(frozen=True)
class Create:
    """Create the mesh."""


@dataclass(frozen=True)
class Join:
    """Join the mesh at these URLs (hints: any of them may be unreachable)."""

    urls: tuple[str, ...]
    mesh_id: str = ""
    node_id: str = ""
    """The node that announced it."""


@dataclass(frozen=True)
class Wait:
    """Decide again after `seconds`, or when a new announcement arrives."""

    seconds: float
    why: str
    supports: str = ""
    """The candidate to support in this node's announcement."""


@dataclass(frozen=True)
class Memory:
    """State that is kept from one decision to the next."""

    started_at: float
    """When this node began to look for a mesh."""
    waits_for: tuple[str, str] = ("", "")
    """(node id, role) of the node that it waits for; empty when there is none."""
    waits_since: float = 0.0
    given_up: frozenset[tuple[str, str]] = frozenset()
    """Nodes, with their role, for which it no longer waits."""


Step = Create | Join | Wait


def decide(
    me: LocalNode,
    seen: Iterable[Sighting],
    memory: Memory,
    now: float,
    config: MeshConfig,
    unreachable: frozenset[str] = frozenset(),
) -> tuple[Step, Memory]:
    """(what to do at `now`, the memory for the next call). The first memory is `Memory(started_at=now)`.

    `unreachable`: the URLs that did not answer when dialled. An announced mesh that can't be reached is never a reason
    to create another one beside it.
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
        why = "is creating the mesh" if role == FOUNDING else "goes first"
        left_s = memory.waits_since + _patience_s(role, config.discovery_wait_s) - now
        return Wait(max(0.01, min(1.0, left_s)), f"Node {name} {why}; this node joins it then.", name), memory
    return _decide_candidacy(me, _rivals(others, memory), memory.started_at, now, config.discovery_wait_s), memory


def _join(
    me: LocalNode, others: list[Sighting], memory: Memory, now: float, unreachable: frozenset[str]
) -> Join | None:
    """A reachable mesh: the one that this node remembers, else the lowest id (after a while, if it remembers one)."""
    meshes: dict[str, list[Sighting]] = {}
    for sighting in others:
        announcement = sighting.announcement
        if announcement.role == MEMBER and set(announcement.urls) - unreachable:
            meshes.setdefault(announcement.mesh_id, []).append(sighting)
    if me.mesh_id in meshes:
        mesh_id = me.mesh_id
    elif not meshes or (me.mesh_id and now - memory.started_at < REMEMBERED_PATIENCE_S):
        return None
    else:
        mesh_id = min(meshes)
    announcers = sorted(meshes[mesh_id], key=lambda sighting: (-sighting.heard_at, sighting.announcement.node_id))
    urls = dict.fromkeys(url for sighting in announcers for url in sighting.announcement.urls)
    return Join(tuple(url for url in urls if url not in unreachable), mesh_id, announcers[0].announcement.node_id)


def _wait_for_remembered(me: LocalNode, members: list[Announcement], memory: Memory, now: float) -> Wait | None:
    """A node that was in a mesh never creates another one by accident."""
    if not me.mesh_id:
        return None
    left_s = REMEMBERED_PATIENCE_S - (now - memory.started_at)
    elsewhere = [announcement for announcement in members if announcement.mesh_id != me.mesh_id]
    if elsewhere and left_s > 0:
        return Wait(
            max(0.1, min(5.0, left_s)),
            f"This node belongs to mesh {me.mesh_id}, which does not answer; node {elsewhere[0].node_id} "
            f"announces another mesh of the same name, which is joined in {REMEMBERED_PATIENCE_S:.0f} s.",
        )
    return Wait(
        5.0,
        f"This node belongs to mesh {me.mesh_id} ({me.mesh_name}) and waits for it; start one of that mesh's "
        "other nodes, name one with --join, or start with an empty --data to create a new mesh.",
    )


def _wait_for_unreachable(me: LocalNode, members: list[Announcement]) -> Wait | None:
    if not members:
        return None
    announcement = members[0]
    return Wait(
        2.0,
        f"Node {announcement.node_id} announces mesh {announcement.mesh_name} at "
        f"{', '.join(announcement.urls[:3]) or 'no address'}, but nothing answers there; it may have just stopped, or "
        "a firewall blocks the connection (queztl doctor).",
        me.node_id,
    )


def _patience_s(role: str, wait_s: float) -> float:
    # a living candidate creates the mesh within three waits of its start, and announces it within a fourth
    return FOUNDING_PATIENCE_S if role == FOUNDING else 5 * wait_s


def _renew(me: LocalNode, others: list[Sighting], memory: Memory, now: float, wait_s: float) -> Memory:
    """The node to wait for now, and since when."""
    given_up = memory.given_up
    if memory.waits_for[0] and now - memory.waits_since >= _patience_s(memory.waits_for[1], wait_s):
        given_up |= {memory.waits_for}
    nodes = {(sighting.announcement.node_id, sighting.announcement.role) for sighting in others} - given_up
    founders = sorted(node for node in nodes if node[1] == FOUNDING)
    lower = sorted(node for node in nodes if node[1] == CANDIDATE and node[0] < me.node_id)
    first = next(iter(founders + lower), ("", ""))
    if first == memory.waits_for:
        return memory
    return Memory(memory.started_at, first, now, given_up)


def _rivals(others: list[Sighting], memory: Memory) -> list[Sighting]:
    return [
        sighting
        for sighting in others
        if sighting.announcement.role == CANDIDATE and (sighting.announcement.node_id, CANDIDATE) not in memory.given_up
    ]


def _decide_candidacy(
    me: LocalNode, rivals: list[Sighting], started_at: float, now: float, wait_s: float
) -> Create | Wait:
    """The decision when no other node goes first; see the module docstring."""
    if now - started_at < wait_s:
        left_s = wait_s - (now - started_at)
        return Wait(left_s, f"Listening {wait_s:.1f} s for other nodes that start now.", me.node_id)
    # a rival that supports a third node, which this node can't hear, may create a mesh as well
    waits = [
        2 * wait_s - (now - max(rival.since, started_at))
        for rival in rivals
        if rival.announcement.supports != me.node_id
    ]
    if any(left_s > 0 for left_s in waits):
        return Wait(max(waits), "Other nodes start at the same time; waiting until they agree.", me.node_id)
    return Create()
