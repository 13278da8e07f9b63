"""Whether a replica of a stream has the messages it should have.

The servers report a replica as current as soon as its Raft log is. Its messages may arrive later: a queue scaled from
one replica to three was reported current on two servers that had no message of it for ten seconds (nats-server 2.15).
So each server is asked for its own last sequence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from mesh.cluster.observed import Stream
from mesh.cluster.upkeep import State, differing

#: Stream -> server -> last sequence of its replica.
Held = dict[str, dict[str, int]]


def read_held(answers: Iterable[dict[str, Any]]) -> Held:
    """The last sequence of each replica, from the answers to JSZ with `streams`. Pure."""
    found: Held = {}
    for answer in answers:
        server = str((answer.get("server") or {}).get("name", ""))
        for account in (answer.get("data") or {}).get("account_details") or ():
            for stream in account.get("stream_detail") or ():
                found.setdefault(str(stream["name"]), {})[server] = int(stream["state"]["last_seq"])
    return found


def read_states(answers: Iterable[dict[str, Any]]) -> dict[str, dict[str, State]]:
    """Stream -> server -> what its replica holds, from the answers to JSZ with `streams`. Pure."""
    found: dict[str, dict[str, State]] = {}
    for answer in answers:
        server = str((answer.get("server") or {}).get("name", ""))
        for account in (answer.get("data") or {}).get("account_details") or ():
            for stream in account.get("stream_detail") or ():
                state = stream["state"]
                held = State(int(state.get("first_seq", 0)), int(state["last_seq"]), int(state.get("messages", 0)))
                found.setdefault(str(stream["name"]), {})[server] = held
    return found


class Replicas:
    """Compares replicas with the previous observation, because a busy stream grows between two answers of one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._leader_had: dict[str, int] = {}
        self._behind_since: dict[str, float] = {}
        self._differ_since: dict[str, float] = {}
        self._repairs: dict[str, int] = {}
        self._members: dict[str, frozenset[str]] = {}
        self._settled: dict[str, frozenset[str]] = {}

    def compare(self, streams: Iterable[Stream], states: dict[str, dict[str, State]]) -> tuple[Stream, ...]:
        """The streams with the replicas that differ from the others; only those of which every replica answered."""
        return tuple(self._compare(stream, states.get(stream.name, {})) for stream in streams)

    def _compare(self, stream: Stream, states: dict[str, State]) -> Stream:
        # The servers keep a replica for about a second after the stream was scaled down, and list it as a member.
        kept = stream.members if len(states) <= stream.replicas else {stream.leader}
        stream = replace(stream, leftovers=frozenset(states) - kept)
        if len(stream.members) < 2 or states.keys() != stream.members:
            return stream
        if len({state.last for state in states.values()}) != 1:  # a busy stream: nothing can be compared now
            return stream
        odd = differing(stream.leader, states)
        if not odd:
            self._differ_since.pop(stream.name, None)
            return stream
        since = self._differ_since.setdefault(stream.name, self._clock())
        differs_s = (self._clock() - since) / 4 ** self._repairs.get(stream.name, 0)
        return replace(stream, differing=odd, differs_s=differs_s)

    def scaled_down(self, streams: Iterable[str]) -> None:
        """These streams are made anew. One that differs again afterwards is repaired after four times as long."""
        for stream in streams:
            if self._differ_since.pop(stream, None) is not None:
                self._repairs[stream] = self._repairs.get(stream, 0) + 1

    def settled(self, streams: Iterable[str]) -> None:
        """The Raft logs of these streams have an entry after the latest observed change of their members."""
        self._settled.update({stream: self._members.get(stream, frozenset()) for stream in streams})

    def judge(self, streams: Iterable[Stream], held: Held) -> tuple[Stream, ...]:
        """The streams; a replica stays current only if it has what its leader had at the previous observation."""
        return tuple(self._judge(stream, held.get(stream.name, {})) for stream in streams)

    def _judge(self, stream: Stream, held: dict[str, int]) -> Stream:
        self._members[stream.name] = stream.members
        is_settled = len(stream.members) < 2 or self._settled.get(stream.name) == stream.members
        stream = replace(stream, settled=is_settled)
        now, leader_has = self._clock(), held.get(stream.leader)
        if leader_has is None:  # no leader, or its server did not answer: nothing can be compared
            complete = stream.current & {stream.leader}
        else:
            due = min(leader_has, self._leader_had.get(stream.name, leader_has))
            self._leader_had[stream.name] = leader_has
            complete = frozenset(server for server in stream.current if held.get(server, -1) >= due)
        if complete == stream.members:
            self._behind_since.pop(stream.name, None)
            return replace(stream, current=complete)
        return replace(stream, current=complete, behind_s=now - self._behind_since.setdefault(stream.name, now))
