"""A bus server and a stream as the leader observes them. Plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Server:
    """A bus server that its node has recorded, or that is in the meta group, or both."""

    name: str
    node: str
    addresses: frozenset[str] = frozenset()
    recorded: bool = True
    """Whether its node has a record of running it. The plan never waits for a server without a record."""
    in_group: bool = True
    current: bool = True
    """Whether the leader of the meta group hears it, and it is up to date."""
    age_s: float = 1e9
    """How long its record has existed."""
    gone_s: float = 0.0
    """How long its node has been gone; 0 while it is not, or while the server itself answers."""
    leaving: bool = False
    """Whether its node drains in order to stop."""
    late_s: float = 0.0
    """How long it has not been current while its node was up."""
    restarted_s: float = 1e9
    """How long ago it was told to restart."""


@dataclass(frozen=True)
class Stream:
    """A stream and the location of its replicas."""

    name: str
    replicas: int
    """Its configured number of replicas."""
    leader: str
    current: frozenset[str]
    """Servers with an up-to-date replica, the leader included."""
    members: frozenset[str]
    """Servers that have, or are getting, a replica. Empty: the stream did not answer, only its name is known."""
    behind_s: float = 0.0
    """How long a replica has been behind, as the observer saw it."""
    leftovers: frozenset[str] = frozenset()
    """Servers that still hold a replica which the stream no longer has."""
    differing: frozenset[str] = frozenset()
    """Servers whose replica holds other messages than most, at the same last sequence."""
    differs_s: float = 0.0
    """How long that has been so, as the observer saw it."""
    settled: bool = True
    """Whether its Raft log has an entry after the latest change of its members, see `upkeep.settle`."""
