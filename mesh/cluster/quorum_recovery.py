"""Most bus servers are lost for good: what may be lost with them, and going on with those that are left.

Never done by itself: the lost ones may only be out of sight, and be going on without us. A person says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus import admin_api
from mesh.cluster import raft_meta
from mesh.cluster.controller import read_servers
from mesh.errors import BusUnavailable, QueztlError
from mesh.subjects import host_of

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: Raft elects within 4 to 9 s.
_LEADER_WITHIN_S = 20.0
#: nats-server waits ten seconds for the consumers of a stream that changes its size.
_SERVED_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class Damage:
    """What is seen of the bus servers."""

    leader: str
    """The server that leads; "" while none does."""
    there: tuple[str, ...]
    size: int
    """How many servers the group counts."""

    @property
    def needs_rescue(self) -> bool:
        """Whether it can't heal by itself: no leader, and no majority that could elect one."""
        return not self.leader and bool(self.there) and len(self.there) * 2 <= self.size


def damage(groups: dict[str, raft_meta.Group]) -> Damage:
    """From each server's own view of the group. Pure."""
    leading = next((name for name, group in groups.items() if group.leader == name), "")
    return Damage(leading, tuple(sorted(groups)), max((group.size for group in groups.values()), default=0))


def explain(found: Damage) -> list[str]:
    """What is the matter, what to do first, and what a rescue may cost: sentences for a person. Pure."""
    hosts = ", ".join(map(host_of, found.there)) or "none"
    if found.leader:
        return [f"The bus has a leader ({host_of(found.leader)}) and serves: there is nothing to rescue."]
    if not found.there:
        return ["No bus server with streams can be heard: start one of the machines that ran one."]
    if not found.needs_rescue:
        return [
            f"{len(found.there)} of {found.size} bus servers are there ({hosts}): that is a majority, and they elect a "
            "leader by themselves within ten seconds."
        ]
    return [
        f"{len(found.there)} of {found.size} bus servers are there ({hosts}): no majority, so nothing can be stored.",
        "First: start the machines that are missing. As soon as one more is back, everything goes on by itself and "
        "nothing is lost.",
        "Only if they never come back: `queztl bus rescue --yes` goes on with what is on the machines that are left.",
        "Then whatever was confirmed by the lost machines alone, in their last moments, is lost, and the lost machines "
        "must not come back where they can't reach this mesh: they would go on as a second one.",
    ]


async def look(system: Bus) -> Damage:
    """What the servers that can be heard say; `system`: of the system account."""
    return damage(raft_meta.read_groups(await raft_meta.ask_all(system)))


async def rescue(system: Bus, bus: Bus, say: Callable[[str], None]) -> None:
    """Go on with the servers that are there. Raises: BusUnavailable when they elect no leader, ApiError."""
    found = await look(system)
    say(f"{', '.join(map(host_of, found.there))} may decide alone from now on")
    await admin_api.lower_quorum(system, len(found.there) // 2 + 1)
    group = await _until_led(system, len(found.there))
    for name in sorted(set(group.members) - set(found.there)):
        say(f"{name} is taken out of the group")
        await raft_meta.remove(system, name)
    group = await _until_led(system, len(found.there))
    for stream in await raft_meta.list_streams(bus):
        await bus.update_stream(stream.name, num_replicas=min(len(found.there), 1 if len(found.there) == 2 else 3))
    say("each stream elects a leader, which takes up to half a minute")
    await _until_served(bus, len(found.there))
    for one in await read_servers(bus):
        if one.name not in group.members:
            # Its machine asks for this record when it comes back, and puts its store aside.
            await bus.kv(subjects.KV_MESH).delete(subjects.server_key(one.node))
    say("done: the mesh goes on, and grows again when there are machines for it")


async def _until_served(bus: Bus, servers: int) -> None:
    """Until every stream has a leader again. Raises: BusUnavailable."""
    deadline = time.monotonic() + _SERVED_WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(QueztlError):
            if all(one.leader and len(one.members) <= servers for one in await raft_meta.list_streams(bus)):
                return
        await asyncio.sleep(_LOOK_EVERY_S)
    raise BusUnavailable(f"not every stream has a leader after {_SERVED_WITHIN_S:.0f} s; run it again")


async def _until_led(system: Bus, at_least: int) -> raft_meta.Group:
    deadline = time.monotonic() + _LEADER_WITHIN_S
    while time.monotonic() < deadline:
        try:
            groups = raft_meta.read_groups(await raft_meta.ask_all(system))
        except QueztlError:
            groups = {}
        for name, group in groups.items():
            if group.leader == name and len(group.members) >= at_least:
                return group
        await asyncio.sleep(_LOOK_EVERY_S)
    raise BusUnavailable(f"no bus server leads after {_LEADER_WITHIN_S:.0f} s; run it again")
