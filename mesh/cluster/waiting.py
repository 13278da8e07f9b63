"""What a node says that waits for its mesh: which bus servers it knows and reaches, how many it needs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesh.bus.server.data_dir import BusMarker, Route
from mesh.discovery.identity import MeshIdentity
from mesh.subjects import host_of
from mesh.views import BusView, NetworkView, QueueView, RegistryView, WaitingView


@dataclass(frozen=True)
class KnownServers:
    """What a node knows of the bus servers of its mesh. All names are ids of nodes."""

    node: str
    """The node itself."""
    members: Mapping[str, Sequence[Route]]
    """The nodes that run the bus servers, and where they were last heard; this node too, if it runs one."""
    reached: frozenset[str] = frozenset()
    """Those whose servers are connected."""
    heard: frozenset[str] = frozenset()
    """Those that announce themselves on the local network."""
    size: int = 0
    """How many servers there are, as they say themselves; 0: not known."""
    led: bool = False
    """Whether they have a leader."""
    command: str = ""
    """What a person runs on this machine when the others are lost for good."""

    @property
    def total(self) -> int:
        """How many servers there are."""
        return max(self.size, len(self.members), len(self.reached))

    @property
    def needed(self) -> int:
        """How many must be connected: a majority."""
        return self.total // 2 + 1


def known_members(marker: BusMarker, own: Sequence[Route] = ()) -> dict[str, Sequence[Route]]:
    """Node id -> routes of all servers that a data directory names, its own first."""
    others = {host_of(member.name): member.routes for member in marker.members}
    return {host_of(marker.server_name): own, **others}


def view_of(known: KnownServers) -> WaitingView:
    """Who waits for whom, and what a person can do."""
    lost = not known.led and len(known.reached) < known.needed
    return WaitingView(
        reason=_reason(known, lost),
        members=tuple(sorted(known.members)),
        reached=tuple(sorted(known.reached)),
        heard=tuple(sorted(known.heard)),
        needed=known.needed if known.total else 0,
        if_lost=known.command if lost and known.reached else "",
    )


def _reason(known: KnownServers, lost: bool) -> str:
    if not known.total:
        return "this node waits for its mesh: it knows no bus server and reaches none"
    there = f"{len(known.reached)} of {known.total} bus servers of this mesh {_are(len(known.reached))} there"
    if known.reached:
        there += f" ({', '.join(sorted(known.reached))})"
    if not lost:
        return f"{there}, which is a majority; this node waits until they have elected their leaders, about ten seconds"
    missing = [node for node in sorted(known.members) if node not in known.reached]
    start = ", ".join(_place(node, known) for node in missing) or "on the machines that ran them"
    return f"{there}, {known.needed} are needed, so this node waits; start the missing nodes: {start}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _place(node: str, known: KnownServers) -> str:
    hosts = dict.fromkeys(host for host, _ in known.members[node])
    facts = [f"last at {', '.join(hosts)}"] if hosts else []
    if node in known.heard:
        facts.append("heard on this network but not connected")
    return f"{node} ({'; '.join(facts)})" if facts else node


def advice(view: WaitingView) -> str:
    """The sentence about machines that are lost for good; "" where there is nothing to decide."""
    if not view.if_lost:
        return ""
    return (
        "As soon as one more of them is back, everything goes on by itself and nothing is lost. Only if they are lost "
        f"for good, run on this machine: {view.if_lost}"
    )


def waiting_network(mesh: MeshIdentity, urls: Iterable[str], waiting: WaitingView) -> NetworkView:
    """The document of `network/status` of a node that waits for its mesh."""
    alarms = (waiting.reason, advice(waiting))
    return NetworkView(
        mesh=mesh.name,
        mesh_id=mesh.id,
        leader="",
        fence=0,
        bus=BusView(tuple(dict.fromkeys(urls)), waiting.reason, waiting.reason),
        queue=QueueView(None),
        alarms=tuple(f"{text[0].upper()}{text[1:]}" for text in alarms if text),
        registry=RegistryView(0, ()),
        waiting=waiting,
    )


def reached_hosts(servers: Collection[str]) -> frozenset[str]:
    """The nodes of the servers with these names."""
    return frozenset(map(host_of, servers))
