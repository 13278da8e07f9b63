"""The steps that the topology plan can take, as plain values. The controller carries them out (pure)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wait:
    """Nothing can be done now; `reason` is for people, "" when the target state is reached."""

    reason: str = ""


@dataclass(frozen=True)
class Promote:
    """Make `node` start a bus server that joins the group."""

    node: str


@dataclass(frozen=True)
class Scale:
    """Change the number of replicas of these streams."""

    streams: tuple[str, ...]
    replicas: int


@dataclass(frozen=True)
class MoveStreams:
    """Make the replicas on server `to` the leaders of these streams."""

    streams: tuple[str, ...]
    to: str


@dataclass(frozen=True)
class MoveMeta:
    """Make server `to` the leader of the meta group."""

    to: str


@dataclass(frozen=True)
class Remove:
    """Remove a server from the meta group; its replicas are created again on other servers."""

    server: str


@dataclass(frozen=True)
class Stop:
    """Make `node` stop the server, which is not in the group."""

    node: str
    server: str


@dataclass(frozen=True)
class Restart:
    """Make `node` restart its server, which is a member of the group and does not catch up."""

    node: str
    server: str


@dataclass(frozen=True)
class Settle:
    """Append an entry to the Raft log of each of these streams, after the latest change of its members."""

    streams: tuple[str, ...]


Step = Wait | Promote | Scale | MoveStreams | MoveMeta | Remove | Stop | Restart | Settle
