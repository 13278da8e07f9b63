"""Which machine should run a bus server, and what to do next about it. Pure: what is seen in, one step out.

One safe step at a time, decided afresh from what is seen each time: whoever carries steps out may be killed between
any two of them, and the next one goes on from what it finds. The rules that hold whatever happens:

- Servers join one by one. Two fresh ones that meet before they met the others elect a leader among themselves, and
  its empty catalogue wipes every stream (found by trying).
- No server is removed from the group while a stream would lose its last current copy, or the group its majority.
- A group of two is a step on the way, never a place to stay: losing either of the two would stop the bus.
- Nothing is shrunk because somebody died. A dead server is replaced, or waited for; only leaving in order shrinks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh.subjects import host_of

MINIMUM_FREE_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Rules:
    """How patient the plan is; see `mesh/config.py`."""

    servers: int = 3
    candidate_s: float = 20.0
    gone_s: float = 60.0
    join_s: float = 30.0
    behind_s: float = 5.0
    """A copy that lags this long is told of; on a busy bus each one does for a moment."""


@dataclass(frozen=True)
class Candidate:
    """A node that runs no bus server."""

    node: str
    addresses: frozenset[str]
    up_s: float
    """How long it has been up, as the observer saw it."""
    free_bytes: int = MINIMUM_FREE_BYTES
    wired: bool = True
    willing: bool = True
    """False while it drains, is suspect, or failed to host a moment ago."""


@dataclass(frozen=True)
class Server:
    """A bus server: one its node told of, one in the meta group, or both."""

    name: str
    node: str
    addresses: frozenset[str] = frozenset()
    told: bool = True
    """Whether its node says that it runs this server. What runs no longer is never waited for."""
    in_group: bool = True
    current: bool = True
    """Whether the meta leader hears it and it has all there is."""
    age_s: float = 1e9
    """How long ago its node told of it first."""
    gone_s: float = 0.0
    """How long its node has been gone; 0 while it is not."""
    leaving: bool = False
    """Whether its node drains in order to stop."""


@dataclass(frozen=True)
class Stream:
    """One stream and where its copies are."""

    name: str
    replicas: int
    """How many copies it is to have."""
    leader: str
    current: frozenset[str]
    """Servers with a copy that has all there is, the leader's own included."""
    members: frozenset[str]
    """Servers that have, or are getting, a copy; none: it did not answer, and nothing is known of it but its name."""
    behind_s: float = 0.0
    """For how long a copy has lacked something, as the observer saw it."""


@dataclass(frozen=True)
class View:
    """What is seen, all of it."""

    leader: str
    """The server that leads the meta group; "" while none does."""
    servers: tuple[Server, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    streams: tuple[Stream, ...] = ()


@dataclass(frozen=True)
class Wait:
    """Nothing can be done now; `reason` is for people, "" when all is as it should be."""

    reason: str = ""


@dataclass(frozen=True)
class Promote:
    """Have `node` start a bus server and join."""

    node: str


@dataclass(frozen=True)
class Scale:
    """Have these streams kept in `replicas` copies."""

    streams: tuple[str, ...]
    replicas: int


@dataclass(frozen=True)
class MoveStreams:
    """Have the copies on `to` lead these streams."""

    streams: tuple[str, ...]
    to: str


@dataclass(frozen=True)
class MoveMeta:
    """Have `to` lead the meta group."""

    to: str


@dataclass(frozen=True)
class Remove:
    """Take a server out of the meta group; its copies are made anew elsewhere."""

    server: str


@dataclass(frozen=True)
class Stop:
    """Have `node` end the server, which is in no group (any more)."""

    node: str
    server: str


Step = Wait | Promote | Scale | MoveStreams | MoveMeta | Remove | Stop


@dataclass(frozen=True)
class _Group:
    """The meta group, sorted out once."""

    members: tuple[Server, ...]
    staying: tuple[Server, ...]
    outgoing: tuple[Server, ...]
    free: tuple[Candidate, ...] = field(default=())

    @property
    def names(self) -> frozenset[str]:
        return frozenset(one.name for one in self.members)


def plan(view: View, rules: Rules) -> Step:
    """The next step. Deciders in order: the first that has something to say is obeyed."""
    if not view.leader:
        return Wait("the bus servers have no leader")
    group = _sort_out(view, rules)
    target = _target(view, group, rules)
    return (
        _finish_joining(view, group, rules)  # one newcomer at a time, and a failed one is ended first
        or _grow(group, target)  # somebody new before anybody goes
        or _listen(view)  # what is not known can't be judged
        or _copy(view, group, target)  # then the copies
        or _shrink(view, group, target)  # then whoever is not wanted any more
        or Wait(_shortage(view, group, rules))
    )


def pick(candidates: Iterable[Candidate], taken: Iterable[frozenset[str]], rules: Rules) -> list[Candidate]:
    """Those who may host, best first, no two of them (and none of `taken`) on one machine."""
    fit = [
        one
        for one in candidates
        if one.willing and one.up_s >= rules.candidate_s and one.free_bytes >= MINIMUM_FREE_BYTES and one.addresses
    ]
    fit.sort(key=lambda one: (not one.wired, -min(one.up_s, 3600.0) // 600, -one.free_bytes // 10**11, one.node))
    machines, picked = list(taken), []
    for one in fit:
        if not any(one.addresses & machine for machine in machines):
            machines.append(one.addresses)
            picked.append(one)
    return picked


def _sort_out(view: View, rules: Rules) -> _Group:
    members = tuple(one for one in view.servers if one.in_group)
    staying = tuple(one for one in members if one.told and not one.leaving and one.gone_s < rules.gone_s)
    outgoing = tuple(sorted((one for one in members if one not in staying), key=lambda one: (one.told, one.name)))
    # A machine whose server leaves is no place for another one; one whose server is dead and gone may be.
    taken = [one.addresses for one in view.servers if one.gone_s == 0 and one.told]
    return _Group(members, staying, outgoing, tuple(pick(view.candidates, taken, rules)))


def _target(view: View, group: _Group, rules: Rules) -> int:
    """How many servers the group should have."""
    within_reach = len(group.staying) + len(group.free)
    # Those on the way in are counted on: else growing would be given up between its two halves.
    within_reach += sum(not one.in_group and one.told and one.gone_s == 0 for one in view.servers)
    if within_reach >= rules.servers:
        return rules.servers
    if any(one.leaving and one.gone_s == 0 for one in group.outgoing) or len(group.members) == 2:
        return 1
    return len(group.members)


def _finish_joining(view: View, group: _Group, rules: Rules) -> Step | None:
    for one in view.servers:
        if one.in_group or not one.told or 0 < one.gone_s < rules.gone_s:
            continue
        if one.gone_s or one.leaving or one.age_s >= rules.join_s:
            return Stop(one.node, one.name)
        return Wait(f"{one.node} joins")
    late = [one.node for one in group.staying if not one.current and one.gone_s == 0]
    return Wait(f"{', '.join(late)} catches up") if late else None


def _grow(group: _Group, target: int) -> Step | None:
    if len(group.staying) < target and group.free:
        return Promote(group.free[0].node)
    return None


def _listen(view: View) -> Step | None:
    unheard = [one.name for one in view.streams if not one.members]
    return Wait(f"{', '.join(unheard)}: nobody answers for it") if unheard else None


def _copy(view: View, group: _Group, target: int) -> Step | None:
    """More copies, once there are enough servers for them."""
    sound = frozenset(one.name for one in group.staying if one.current)
    if target == 1 or len(sound) < target:
        return None
    few = tuple(one.name for one in view.streams if one.replicas < target)
    if few:
        return Scale(few, target)
    thin = [one.name for one in view.streams if len(one.current & sound) < min(target, 2)]
    return Wait(f"{', '.join(thin)}: copies are being made") if thin else None


def _shrink(view: View, group: _Group, target: int) -> Step | None:
    """Take out who is not wanted any more, as soon as nothing depends on it."""
    sound = [one for one in group.staying if one.current]
    if len(sound) < target or not sound:
        return None
    keep = _keep(view, sound, target)
    extra = [one for one in group.members if one.name not in keep]
    if not extra:
        return None
    # The dead first: as long as they count, they count against the majority.
    leaver = min(extra, key=lambda one: (one.told and one.gone_s == 0, one.current, one.name))
    step = _gather(view, group, next(iter(keep))) if target == 1 else _relieve(view, leaver, keep)
    if step is not None:
        return step
    if view.leader not in keep:
        return MoveMeta(min(keep))
    return Remove(leaver.name)


def _keep(view: View, sound: list[Server], target: int) -> frozenset[str]:
    """The names of the `target` servers that stay: those that lead, then the longest there."""
    led = {stream.leader for stream in view.streams if stream.replicas == 1}
    order = sorted(sound, key=lambda one: (one.name not in led, one.name != view.leader, -one.age_s, one.name))
    return frozenset(one.name for one in order[:target])


def _gather(view: View, group: _Group, survivor: str) -> Step | None:
    """Have all streams on one server alone."""
    without = [one for one in view.streams if survivor not in one.members]
    if any(one.replicas < len(group.members) for one in without):
        more = min(one.replicas for one in without) + 1
        return Scale(tuple(one.name for one in without if one.replicas < more), more)
    behind = [one.name for one in view.streams if survivor not in one.current]
    if behind:
        return Wait(f"{', '.join(behind)}: copies are being made on {host_of(survivor)}")
    elsewhere = tuple(one.name for one in view.streams if one.leader != survivor)
    if elsewhere:
        return MoveStreams(elsewhere, survivor)
    many = tuple(one.name for one in view.streams if one.replicas > 1)
    return Scale(many, 1) if many else None


def _relieve(view: View, leaver: Server, keep: frozenset[str]) -> Step | None:
    """Have nothing led by one that goes, and nothing that only it has."""
    thin = [
        one.name
        for one in view.streams
        if leaver.name in one.members and len((one.current & keep) - {leaver.name}) < min(2, len(keep))
    ]
    if thin:
        return Wait(f"{', '.join(thin)}: copies are being made")
    led = [one for one in view.streams if one.leader == leaver.name]
    if not led:
        return None
    to = min(led[0].current & keep)
    return MoveStreams(tuple(one.name for one in led if to in one.current), to)


def _shortage(view: View, group: _Group, rules: Rules) -> str:
    """What people should know although nothing can be done about it."""
    dead = [one.node for one in group.members if one.gone_s or not one.told]
    if dead and len(group.members) > 1:
        return f"{', '.join(dead)} is away, and there is no other machine to take its place"
    leaving = [one.node for one in group.outgoing if one.leaving]
    if leaving:
        return f"there is nobody to take over from {', '.join(leaving)}"
    late = [one.name for one in view.streams if one.behind_s >= rules.behind_s]
    return f"{', '.join(late)}: a copy catches up" if late else ""
