"""State of the meta group and of the streams' replicas, and the few requests that change them.

Only the leader of the meta group knows all its members, and only the leader of a stream knows its replicas.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mesh.bus import admin_api
from mesh.bus.replies import Replica, StreamInfo
from mesh.bus.server.config import MESH_ACCOUNT
from mesh.cluster.observed import Stream
from mesh.subjects import host_of

if TYPE_CHECKING:
    from mesh.bus.client import Bus

JSZ = "$SYS.REQ.SERVER.PING.JSZ"
_ID_LENGTH = 8
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: How long to wait for further servers after each answer, seconds: briefly, and longer for servers known to run.
_QUIET_S, _LATE_S = 0.15, 0.5
#: The request for the replicas of the streams, beside the group.
_WITH_STREAMS = {"account": MESH_ACCOUNT, "streams": True}
_ANSWER_WITHIN_S = 1.0
#: A member that the leader has not heard for longer counts as absent, nanoseconds.
_SILENT_NS = 3_000_000_000


@dataclass(frozen=True)
class Group:
    """The meta group as its leader sees it."""

    leader: str
    size: int
    """The quorum is a majority of it. The number of members, unless it is wrong (`group_size.py`)."""
    members: dict[str, bool]
    """Every member by name, the leader included: whether it is connected and up to date."""


def peer_id(server: str) -> str:
    """The id of a server: a hash of its name, which servers use for peers whose name they don't know. Pure.

    See `getHash` of nats-server 2.15.
    """
    return "".join(_DIGITS[byte % len(_DIGITS)] for byte in hashlib.sha256(server.encode()).digest()[:_ID_LENGTH])


def read_groups(answers: list[dict[str, Any]], known: Iterable[str] = ()) -> dict[str, Group]:
    """Server -> its view of the group, from the answers to JSZ; servers without JetStream are absent. Pure.

    `known`: names of servers. A new leader knows other members only by their ids; those that are not in `known` are
    named by their id.
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


def answering_servers(answers: list[dict[str, Any]]) -> frozenset[str]:
    """The names of the servers with JetStream that answered JSZ. Pure."""
    present = (answer for answer in answers if (answer.get("data") or {}).get("meta_cluster"))
    return frozenset(str((answer.get("server") or {}).get("name", "")) for answer in present)


def leaders_view(groups: dict[str, Group]) -> Group | None:
    """The leader's own view; None while nobody leads, or the leader does not know all members yet. Pure.

    The size may be below the number of members: `topology.plan` repairs that.
    """
    for name, group in groups.items():
        if group.leader == name and group.size <= len(group.members):
            return group
    return None


def no_leader_reason(groups: dict[str, Group]) -> str:
    """Why there is no leader's view, for people. Pure."""
    for name, group in groups.items():
        if group.leader == name:
            known = f"knows {len(group.members)} of {group.size} members so far"
            return f"{host_of(name)} leads the bus servers and {known}"
    named = sorted({host_of(group.leader) for group in groups.values() if group.leader})
    if named:
        return f"{' and '.join(named)} leads the bus servers and did not answer"
    return "the bus servers have no leader" if groups else "no bus server answered"


async def ask_all(system: Bus, streams: bool = False, known: Iterable[str] = ()) -> list[dict[str, Any]]:
    """The JSZ answer of each reachable bus server: itself, the group and, if `streams`, its stream replicas.

    Otherwise as `ask_servers`.
    """
    return await ask_servers(system, JSZ, _WITH_STREAMS if streams else {}, known)


async def ask_servers(
    system: Bus, subject: str, body: Mapping[str, Any], known: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """The answer of each reachable bus server to a request that all of them get.

    `system`: of the system account; `known`: names of servers to wait for a little longer. Raises: BusUnavailable.
    """
    missing = set(known)
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    inbox = system.new_inbox()
    found: list[dict[str, Any]] = []
    subscription = await system.subscribe(inbox, lambda message: answers.put_nowait(message.data), wait=False)
    try:
        await system.publish(subject, json.dumps(body).encode(), reply=inbox)
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
    """All streams of the mesh with their replicas. Raises: BusUnavailable, ApiError.

    A stream whose replicas did not answer in time is listed with its name only: it exists, and it is not safe.
    """
    listed = await bus.list_streams()
    silent = (Stream(name, 0, "", frozenset(), frozenset()) for name in listed.silent)
    return (*map(read_stream, listed.streams), *silent)


async def leaderless(bus: Bus) -> list[str]:
    """The streams without a leader, which can't be read or written now. Raises: BusUnavailable, ApiError."""
    return [stream.name for stream in await list_streams(bus) if not stream.leader]


def read_stream(info: StreamInfo) -> Stream:
    """A stream with its replicas. Pure."""
    leader = {info.leader} if info.leader else set()
    current = {replica.server for replica in info.replicas if _is_current(replica)}
    return Stream(
        name=info.name,
        replicas=int(info.config.get("num_replicas", 1)),
        leader=info.leader,
        current=frozenset(current | leader),
        members=frozenset({replica.server for replica in info.replicas} | leader),
    )


def _is_current(replica: Replica) -> bool:
    return replica.current and not replica.offline and replica.silent_ns < _SILENT_NS


async def remove(system: Bus, server: str) -> None:
    """Remove a server, by name or id (`Group.members`), from the meta group. Raises: ApiError, BusUnavailable."""
    by_id = server if server.isalnum() and len(server) == _ID_LENGTH else peer_id(server)
    await admin_api.remove_server(system, by_id)
