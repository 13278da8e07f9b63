"""Which machine should run a bus server, and what to do next about it. Pure: what is seen in, one step out.

One safe step at a time, decided anew from the observed state: the leader that carries a step out may be killed after
it, and the next leader continues from what it observes. The invariants:

- Servers join one by one. Two new ones that connect to each other before they connect to the others elect a leader
  between them, and its empty catalogue wipes every stream (observed).
- No server is removed from the group while a stream would lose its last current copy, or the group its majority.
- A group of two is only passed through: losing either of the two would stop the bus.
- A group size below the number of members lowers the quorum: adding or removing a member corrects it (`group_size.py`).
- A dead server never shrinks the group: it is replaced, or waited for. Only a node that leaves does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh.cluster import group_size, upkeep
from mesh.cluster.observed import Server, Stream
from mesh.cluster.steps import MoveMeta, MoveStreams, Promote, Remove, Scale, Step, Stop, Wait
from mesh.subjects import host_of

MINIMUM_FREE_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Rules:
    """The timeouts of the plan, seconds, and the target number of servers; see `mesh/config.py`."""

    servers: int = 3
    candidate_s: float = 20.0
    gone_s: float = 60.0
    join_s: float = 30.0
    behind_s: float = 5.0
    """A replica that lags this long is reported; on a busy bus every replica lags for a moment."""


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
    """False while it drains, is suspect, or has recently failed to host."""
    starting: bool = False
    """Whether it starts a bus server, by order, that it has not recorded yet."""


@dataclass(frozen=True)
class View:
    """Everything that is observed."""

    leader: str
    """The server that leads the meta group; "" when none was found."""
    servers: tuple[Server, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    streams: tuple[Stream, ...] = ()
    size: int = 0
    """The group size, which sets the quorum: the number of members, unless it is wrong; 0: not known."""
    no_leader_reason: str = "the bus servers have no leader"
    """What was found instead of a leader, for people."""


@dataclass(frozen=True)
class _Group:
    """The members of the meta group, classified."""

    members: tuple[Server, ...]
    staying: tuple[Server, ...]
    outgoing: tuple[Server, ...]
    free: tuple[Candidate, ...] = field(default=())

    @property
    def names(self) -> frozenset[str]:
        return frozenset(server.name for server in self.members)


def plan(view: View, rules: Rules) -> Step:
    """The next step: that of the first rule that has one."""
    if not view.leader:
        return Wait(view.no_leader_reason)
    group = _classify(view, rules)
    target = _target(view, group, rules)
    return (
        _finish_joining(view, group, rules)  # one newcomer at a time, and a failed one is ended first
        or _repair_size(view, group, "wait", "add")  # a new member corrects the group size
        or _grow(group, target)  # a new server joins before one leaves
        or _listen(view)  # wait for streams whose state is unknown
        or _repair_size(view, group, "remove")  # so does a removal, when no node can be added
        or _copy(view, group, target)  # then the copies
        or _shrink(view, group, target)  # then remove servers that are not needed any more
        or upkeep.settle(view.streams)  # then an entry in each log, so that each copy could lead alone
        or upkeep.restart_for_copies(group.members, view.streams)  # then what does not heal by itself
        or upkeep.repair_copies(view.streams)
        or Wait(_shortage(view, group, rules))
    )


def pick(candidates: Iterable[Candidate], taken: Iterable[frozenset[str]], rules: Rules) -> list[Candidate]:
    """The candidates that may host, best first, each on a machine of its own that is not in `taken`."""
    fit = [candidate for candidate in candidates if _may_host(candidate, rules)]
    fit.sort(key=_preference)
    machines = list(taken)
    picked: list[Candidate] = []
    for candidate in fit:
        if not any(candidate.addresses & machine for machine in machines):
            machines.append(candidate.addresses)
            picked.append(candidate)
    return picked


def _may_host(candidate: Candidate, rules: Rules) -> bool:
    old_enough, has_room = candidate.up_s >= rules.candidate_s, candidate.free_bytes >= MINIMUM_FREE_BYTES
    return candidate.willing and old_enough and has_room and bool(candidate.addresses)


def _preference(candidate: Candidate) -> tuple[bool, float, int, str]:
    """Wired first, then up for longer (in steps of ten minutes, up to an hour), then more free disk, then by id."""
    return (
        not candidate.wired,
        -min(candidate.up_s, 3600.0) // 600,
        -candidate.free_bytes // 10**11,
        candidate.node,
    )


def _classify(view: View, rules: Rules) -> _Group:
    members = tuple(server for server in view.servers if server.in_group)
    # A machine whose server is leaving can't host another one; one whose server is gone may.
    taken = [server.addresses for server in view.servers if server.gone_s == 0 and server.recorded]
    free = tuple(pick(view.candidates, taken, rules))
    late_s = upkeep.REPLACE_LATE_S if free else math.inf
    staying = tuple(
        server
        for server in members
        if server.recorded and not server.leaving and server.gone_s < rules.gone_s and server.late_s < late_s
    )
    leaving = (server for server in members if server not in staying)
    outgoing = tuple(sorted(leaving, key=lambda server: (server.recorded, server.name)))
    return _Group(members, staying, outgoing, free)


def _target(view: View, group: _Group, rules: Rules) -> int:
    """The target number of servers."""
    within_reach = len(group.staying) + len(group.free)
    # Servers that are joining count: otherwise growth would be abandoned half-way. So do those whose node may be back
    # soon, as after a power cut.
    within_reach += sum(
        not server.in_group and server.recorded and server.gone_s < rules.gone_s and server.age_s < rules.join_s
        for server in view.servers
    )
    if within_reach >= rules.servers:
        return rules.servers
    if any(server.leaving and server.gone_s == 0 for server in group.outgoing) or len(group.members) == 2:
        return 1
    return len(group.members)


def _finish_joining(view: View, group: _Group, rules: Rules) -> Step | None:
    for server in view.servers:
        if server.in_group or not server.recorded or 0 < server.gone_s < rules.gone_s:
            continue
        if server.gone_s or server.leaving or server.age_s >= rules.join_s:
            return Stop(server.node, server.name)
        return Wait(f"{server.node} joins")
    late = [server for server in group.staying if not server.current and server.gone_s == 0]
    if not late:
        return None
    return upkeep.restart_server(group.members, late) or Wait(f"{', '.join(server.node for server in late)} catches up")


def _repair_size(view: View, group: _Group, *allowed: group_size.Repair) -> Step | None:
    """The step that corrects a group size that is too small, if its repair is one of `allowed`."""
    members, current = len(group.members), sum(member.current for member in group.members)
    repair = group_size.repair(view.size, members, current, bool(group.free))
    if repair not in allowed:
        return None
    if repair == "add":
        return _promote(group)
    if repair == "remove":
        followers = (member for member in group.members if member.name != view.leader)
        leaver = min(followers, key=lambda member: (not member.leaving, member.age_s, member.name))
        return _hand_over(view, leaver, group.names - {leaver.name}) or Remove(leaver.name)
    state = group_size.describe(host_of(view.leader), view.size, members)
    return Wait(f"{state}; only {current} of them are connected: start the others")


def _grow(group: _Group, target: int) -> Step | None:
    return _promote(group) if len(group.staying) < target and group.free else None


def _promote(group: _Group) -> Step:
    """One newcomer at a time: wait for a node that starts a server already."""
    starting = [candidate.node for candidate in group.free if candidate.starting]
    return Wait(f"{starting[0]} starts a bus server") if starting else Promote(group.free[0].node)


def _listen(view: View) -> Step | None:
    unheard = [stream.name for stream in view.streams if not stream.members]
    return Wait(f"{', '.join(unheard)}: no replica answers") if unheard else None


def _copy(view: View, group: _Group, target: int) -> Step | None:
    """More replicas, once there are enough servers for them."""
    current = frozenset(server.name for server in group.staying if server.current)
    if target == 1 or len(current) < target:
        return None
    few = [stream for stream in view.streams if stream.replicas < target]
    if few:
        # A server that gets a replica before its old one is removed goes on with that.
        ready = tuple(stream.name for stream in few if not stream.leftovers)
        return Scale(ready, target) if ready else Wait(f"{few[0].name}: old copies are removed")
    thin = [stream.name for stream in view.streams if len(stream.current & current) < min(target, 2)]
    return Wait(f"{', '.join(thin)}: copies are being made") if thin else None


def _shrink(view: View, group: _Group, target: int) -> Step | None:
    """Remove servers that are no longer needed, as soon as nothing depends on them."""
    current = [server for server in group.staying if server.current]
    if len(current) < target or not current:
        return None
    keep = _keep(view, current, target)
    extra = [server for server in group.members if server.name not in keep]
    if not extra:
        return None
    # Dead servers first: while they are members, they count against the majority.
    leaver = min(extra, key=lambda server: (server.recorded and server.gone_s == 0, server.current, server.name))
    step = _gather(view, group, next(iter(keep))) if target == 1 else _hand_over(view, leaver, keep)
    if step is not None:
        return step
    if view.leader not in keep:
        return MoveMeta(min(keep))
    return Remove(leaver.name)


def _keep(view: View, current: list[Server], target: int) -> frozenset[str]:
    """The names of the `target` servers to keep: those that lead, then the oldest."""
    led = {stream.leader for stream in view.streams if stream.replicas == 1}

    def preference(server: Server) -> tuple[bool, bool, float, str]:
        return (server.name not in led, server.name != view.leader, -server.age_s, server.name)

    return frozenset(server.name for server in sorted(current, key=preference)[:target])


def _gather(view: View, group: _Group, survivor: str) -> Step | None:
    """Move all streams to a single server."""
    without = [stream for stream in view.streams if survivor not in stream.members]
    if any(stream.replicas < len(group.members) for stream in without):
        more = min(stream.replicas for stream in without) + 1
        return Scale(tuple(stream.name for stream in without if stream.replicas < more), more)
    behind = [stream.name for stream in view.streams if survivor not in stream.current]
    if behind:
        return Wait(f"{', '.join(behind)}: copies are being made on {host_of(survivor)}")
    elsewhere = tuple(stream.name for stream in view.streams if stream.leader != survivor)
    if elsewhere:
        return MoveStreams(elsewhere, survivor)
    many = tuple(stream.name for stream in view.streams if stream.replicas > 1)
    return Scale(many, 1) if many else None


def _hand_over(view: View, leaver: Server, keep: frozenset[str]) -> Step | None:
    """Make sure that a server to be removed leads no stream, and has no replica that others lack."""
    thin = [
        stream.name
        for stream in view.streams
        if leaver.name in stream.members and len((stream.current & keep) - {leaver.name}) < min(2, len(keep))
    ]
    if thin:
        return Wait(f"{', '.join(thin)}: copies are being made")
    led = [stream for stream in view.streams if stream.leader == leaver.name]
    if not led:
        return None
    to = min(led[0].current & keep)
    return MoveStreams(tuple(stream.name for stream in led if to in stream.current), to)


def _shortage(view: View, group: _Group, rules: Rules) -> str:
    """A shortage to report although nothing can be done about it now; "" when there is none."""
    dead = [server.node for server in group.members if server.gone_s or not server.recorded]
    if dead and len(group.members) > 1:
        return f"{', '.join(dead)} is away, and there is no other machine to take its place"
    leaving = [server.node for server in group.outgoing if server.leaving]
    if leaving:
        return f"there is nobody to take over from {', '.join(leaving)}"
    late = [stream.name for stream in view.streams if stream.behind_s >= rules.behind_s]
    if late:
        return f"{', '.join(late)}: a copy catches up"
    if differs := upkeep.difference(view.streams):
        return differs
    return group_size.describe(host_of(view.leader), view.size, len(group.members))
