"""What the meta group and the streams look like, asked of those who know; and the few orders that change them.

The leader alone knows all members: followers answer with half of it. A stream's leader alone knows its copies.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mesh.bus import admin_api
from mesh.bus.replies import Replica, StreamInfo
from mesh.bus.server.config import MESH_ACCOUNT
from mesh.cluster.topology import Stream

if TYPE_CHECKING:
    from mesh.bus.client import Bus

JSZ = "$SYS.REQ.SERVER.PING.JSZ"
_ID_LENGTH = 8
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: Servers that have not answered this long after the last one that did are not waited for; those known to run, longer.
_QUIET_S, _LATE_S = 0.15, 0.5
#: What a look at the copies of the streams asks for, beside the group.
_WITH_STREAMS = {"account": MESH_ACCOUNT, "streams": True}
_ANSWER_WITHIN_S = 1.0
#: A member the leader has not heard of for longer is not there, nanoseconds.
_SILENT_NS = 3_000_000_000


@dataclass(frozen=True)
class Group:
    """The meta group as its leader sees it."""

    leader: str
    size: int
    members: dict[str, bool]
    """Every member by name, the leader included: whether it is there and has all there is."""


def peer_id(server: str) -> str:
    """What the servers call a peer whose name they don't know (yet, or any more): a hash of its name. Pure.

    Source: `getHash` of nats-server 2.15.
    """
    return "".join(_DIGITS[byte % len(_DIGITS)] for byte in hashlib.sha256(server.encode()).digest()[:_ID_LENGTH])


def read_groups(answers: list[dict[str, Any]], known: Iterable[str] = ()) -> dict[str, Group]:
    """Server -> the group as it sees it, from the answers to JSZ; those without JetStream are absent. Pure.

    `known`: names of servers. A leader that is new to its office knows the others by their ids only; one that is no
    name at all is called by its id.
    """
    by_id = {peer_id(name): name for name in known}
    found: dict[str, Group] = {}
    for answer in answers:
        meta = (answer.get("data") or {}).get("meta_cluster")
        if not meta:
            continue
        me = str((answer.get("server") or {}).get("name", ""))
        members = {me: True}
        for peer in meta.get("replicas") or ():
            heard = int(peer.get("active") or 0) < _SILENT_NS
            name = str(peer["name"])
            if " " in name:
                name = by_id.get(str(peer["peer"]), str(peer["peer"]))
            members[name] = bool(peer.get("current")) and not peer.get("offline") and heard
        found[me] = Group(str(meta.get("leader") or ""), int(meta.get("cluster_size") or 0), members)
    return found


def leaders_view(groups: dict[str, Group]) -> Group | None:
    """The leader's own view; None while nobody leads, or the leader does not know all members yet. Pure."""
    for name, group in groups.items():
        if group.leader == name and group.size == len(group.members):
            return group
    return None


async def ask_all(system: Bus, streams: bool = False, known: Iterable[str] = ()) -> list[dict[str, Any]]:
    """What each bus server that can be heard says of itself, the group and, if `streams`, of the copies it has.

    `system`: of the system account. `known`: names of servers, which are waited for a little longer.
    """
    missing = set(known)
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    box, found = system.new_inbox(), []
    subscription = await system.subscribe(box, lambda message: answers.put_nowait(message.data), wait=False)
    try:
        await system.publish(JSZ, json.dumps(_WITH_STREAMS if streams else {}).encode(), reply=box)
        wait_s = _ANSWER_WITHIN_S
        while True:
            async with asyncio.timeout(wait_s):
                found.append(json.loads(await answers.get()))
            missing.discard(str((found[-1].get("server") or {}).get("name", "")))
            wait_s = _LATE_S if missing else _QUIET_S
    except TimeoutError:
        return found
    finally:
        await subscription.close()


async def list_streams(bus: Bus) -> tuple[Stream, ...]:
    """Every stream of the mesh with its copies. One whose copies did not answer in time is there with its name only:
    it is certainly not safe, and nobody may take it for one that does not exist. Raises: BusUnavailable, ApiError."""
    listed = await bus.list_streams()
    silent = (Stream(name, 0, "", frozenset(), frozenset()) for name in listed.silent)
    return (*map(read_stream, listed.streams), *silent)


async def leaderless(bus: Bus) -> list[str]:
    """The streams that nobody leads: what they hold can't be read or written now. Raises: BusUnavailable, ApiError."""
    return [stream.name for stream in await list_streams(bus) if not stream.leader]


def read_stream(info: StreamInfo) -> Stream:
    """One stream with its copies. Pure."""
    leader = {info.leader} if info.leader else set()
    current = {copy.server for copy in info.replicas if _is_sound(copy)}
    return Stream(
        name=info.name,
        replicas=int(info.config.get("num_replicas", 1)),
        leader=info.leader,
        current=frozenset(current | leader),
        members=frozenset({copy.server for copy in info.replicas} | leader),
    )


def _is_sound(copy: Replica) -> bool:
    return copy.current and not copy.offline and copy.silent_ns < _SILENT_NS


async def remove(system: Bus, server: str) -> None:
    """Take a server, by name or id (`Group.members`), out of the meta group. Raises: ApiError, BusUnavailable."""
    by_id = server if server.isalnum() and len(server) == _ID_LENGTH else peer_id(server)
    await admin_api.remove_server(system, by_id)
