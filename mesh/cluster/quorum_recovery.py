"""Recovery when most bus servers are lost for good: what may be lost with them, and continuing with the rest.

It is never automatic: the lost servers may only be partitioned, and continue without this side. A person orders it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus import admin_api
from mesh.bus.streams import durable_config
from mesh.cluster import raft_meta
from mesh.cluster.controller import read_servers
from mesh.errors import BusUnavailable, QueztlError
from mesh.subjects import host_of

if TYPE_CHECKING:
    from mesh.bus.client import Bus

#: Raft elects a leader within 4 to 9 s.
_LEADER_WITHIN_S = 20.0
#: nats-server waits ten seconds for the consumers of a stream that changes its size.
_SERVED_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.5
#: How long the answer to the removal of a consumer without a leader is waited for, seconds: there is none.
_FORGOTTEN_S = 2.0
RESCUE = "queztl bus rescue --yes"


@dataclass(frozen=True)
class Damage:
    """The observed state of the bus servers."""

    leader: str
    """The server that leads; "" while none does."""
    reachable: tuple[str, ...]
    """The servers that answered."""
    size: int
    """How many members the group has."""

    @property
    def needs_rescue(self) -> bool:
        """Whether it can't recover by itself: no leader, and no majority that could elect one."""
        return not self.leader and bool(self.reachable) and len(self.reachable) * 2 <= self.size


def damage(groups: dict[str, raft_meta.Group]) -> Damage:
    """The damage, from each server's own view of the group. Pure."""
    leading = next((name for name, group in groups.items() if group.leader == name), "")
    # The group size may be wrong (`group_size.py`), and a server that just restarted may not know every member.
    size = max((max(group.size, len(group.members)) for group in groups.values()), default=0)
    return Damage(leading, tuple(sorted(groups)), size)


def explain(found: Damage, command: str = RESCUE) -> list[str]:
    """The situation, what to do first, and what a rescue by `command` may cost: sentences for a person. Pure."""
    hosts = ", ".join(map(host_of, found.reachable)) or "none"
    if found.leader:
        return [f"The bus has a leader ({host_of(found.leader)}) and serves: there is nothing to rescue."]
    if not found.reachable:
        return ["No bus server with streams answers: start one of the machines that ran one."]
    seen = f"{len(found.reachable)} of {found.size} bus servers are there ({hosts})"
    if not found.needs_rescue:
        return [f"{seen}: that is a majority, and they elect a leader by themselves within ten seconds."]
    return [
        f"{seen}: no majority, so nothing can be stored.",
        "First: start the machines that are missing. As soon as one more is back, everything continues by itself and "
        "nothing is lost.",
        f"Only if they never come back: `{command}` continues with what is on the remaining machines.",
        "Then what only the lost machines had confirmed, in their last moments, is lost, and the lost machines must "
        "not come back where they can't reach this mesh: they would continue as a second one.",
    ]


async def look(system: Bus) -> Damage:
    """The damage as reported by the servers that answer; `system`: of the system account."""
    return damage(raft_meta.read_groups(await raft_meta.ask_all(system)))


async def rescue(system: Bus, bus: Bus, say: Callable[[str], None]) -> None:
    """Continue with the reachable servers. Raises: BusUnavailable when they elect no leader, ApiError."""
    found = await look(system)
    say(f"{', '.join(map(host_of, found.reachable))} may decide alone from now on")
    await admin_api.lower_quorum(system, len(found.reachable) // 2 + 1)
    group = await _until_led(system, len(found.reachable))
    for name in sorted(set(group.members) - set(found.reachable)):
        say(f"{name} is taken out of the group")
        await raft_meta.remove(system, name)
    group = await _until_led(system, len(found.reachable))
    replicas = min(len(found.reachable), 1 if len(found.reachable) == 2 else 3)
    say("each stream elects a leader, which takes up to half a minute")
    await _set_replicas(bus, replicas)
    await _until_served(bus, len(found.reachable))
    for stream in (subjects.WORK, subjects.LATER):
        await _revive_consumers(bus, stream, say)
    for record in await read_servers(bus):
        if record.name not in group.members:
            # Its node looks for this record when it comes back, and then puts its store aside.
            await bus.kv(subjects.KV_MESH).delete(subjects.server_key(record.node))
    say("done: the mesh continues, and grows again when there are machines for it")


async def _until(condition: Callable[[], Awaitable[bool]], limit_s: float) -> bool:
    """Whether the condition holds within `limit_s` seconds; one that raises is tried again.

    Raises: QueztlError, that of the last attempt.
    """
    deadline = time.monotonic() + limit_s
    while True:
        try:
            if await condition():
                return True
            if time.monotonic() > deadline:
                return False
        except QueztlError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_LOOK_EVERY_S)


async def _set_replicas(bus: Bus, replicas: int) -> None:
    """Give every stream so many replicas, as soon as it has a leader. Raises: BusUnavailable, ApiError.

    nats-server does not answer an order for a stream without a leader (2.15.1).
    """

    async def have_them() -> bool:
        streams = await raft_meta.list_streams(bus)
        few = [stream.name for stream in streams if stream.leader and stream.replicas != replicas]
        orders = (bus.update_stream(name, num_replicas=replicas) for name in few)
        for answer in await asyncio.gather(*orders, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
        return not few and all(stream.leader for stream in streams)

    if not await _until(have_them, _SERVED_WITHIN_S):
        raise _not_led()


async def _until_served(bus: Bus, servers: int) -> None:
    """Wait until every stream has a leader again. Raises: BusUnavailable, ApiError."""

    async def served() -> bool:
        streams = await raft_meta.list_streams(bus)
        return all(stream.leader and len(stream.members) <= servers for stream in streams)

    if not await _until(served, _SERVED_WITHIN_S):
        raise _not_led()


def _not_led() -> BusUnavailable:
    return BusUnavailable(f"not every stream has a leader after {_SERVED_WITHIN_S:.0f} s; run it again")


async def _revive_consumers(bus: Bus, stream: str, say: Callable[[str], None]) -> None:
    """Make the consumers of a stream that elect no leader anew. Raises: BusUnavailable, ApiError.

    A consumer has a Raft log of its own. If that ends with the admission of this very copy, which is the rule for one
    that was idle since the bus grew, the copy never campaigns after a restart (nats-server 2.15.1), and nobody can
    write an entry behind it (`upkeep.settle` does that for streams). A new consumer delivers everything that is not
    acknowledged, as if for the first time: what ran may run twice.
    """
    silent: list[str] = []

    async def all_led() -> bool:
        silent[:] = (await bus.list_consumers(stream)).silent
        return not silent

    if await _until(all_led, _LEADER_WITHIN_S):
        return
    say(f"{len(silent)} consumers of {stream} elect no leader and are made anew: what ran may run twice")
    # Nobody answers for them; the leader of the bus servers forgets them all the same.
    await asyncio.gather(
        *(bus.delete_consumer(stream, name, timeout_s=_FORGOTTEN_S) for name in silent), return_exceptions=True
    )
    configs = [config for name in silent if (config := durable_config(name, bus.config)) is not None]

    async def made_anew() -> bool:
        await asyncio.gather(*(bus.create_consumer(stream, config) for config in configs))
        return True

    await _until(made_anew, _LEADER_WITHIN_S)


async def _until_led(system: Bus, at_least: int) -> raft_meta.Group:
    """The group as its leader sees it. Raises: BusUnavailable, ApiError."""
    leading: list[raft_meta.Group] = []

    async def led() -> bool:
        groups = raft_meta.read_groups(await raft_meta.ask_all(system))
        leading[:] = [
            group for name, group in groups.items() if group.leader == name and len(group.members) >= at_least
        ]
        return bool(leading)

    if not await _until(led, _LEADER_WITHIN_S):
        raise BusUnavailable(f"no bus server leads after {_LEADER_WITHIN_S:.0f} s; run it again")
    return leading[0]
