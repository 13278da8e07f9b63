"""Whether a copy of a stream holds what it should.

The servers call a copy current as soon as its Raft log is. What is in the stream may come later: a queue scaled from
one copy to three was called current on two servers that held nothing of it for ten seconds (nats-server 2.15). So each
server is asked what it has itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from mesh.cluster.topology import Stream

#: Stream -> server -> the last sequence of the copy it has.
Held = dict[str, dict[str, int]]


def read_held(answers: Iterable[dict[str, Any]]) -> Held:
    """What each server has of each stream, from the answers to JSZ with `streams`. Pure."""
    found: Held = {}
    for answer in answers:
        server = str((answer.get("server") or {}).get("name", ""))
        for account in (answer.get("data") or {}).get("account_details") or ():
            for stream in account.get("stream_detail") or ():
                found.setdefault(str(stream["name"]), {})[server] = int(stream["state"]["last_seq"])
    return found


class Replicas:
    """Judges copies by what was seen one look earlier: between two answers of one look a busy stream has grown."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._had: dict[str, int] = {}
        self._behind_since: dict[str, float] = {}

    def judge(self, streams: Iterable[Stream], held: Held) -> tuple[Stream, ...]:
        """The streams, with those copies current alone that hold what their leader held one look ago."""
        return tuple(self._judge(one, held.get(one.name, {})) for one in streams)

    def _judge(self, stream: Stream, held: dict[str, int]) -> Stream:
        now, has = self._clock(), held.get(stream.leader)
        if has is None:  # nobody leads, or its server did not answer: nothing can be compared
            whole = stream.current & {stream.leader}
        else:
            due = min(has, self._had.get(stream.name, has))
            self._had[stream.name] = has
            whole = frozenset(one for one in stream.current if held.get(one, -1) >= due)
        if whole == stream.members:
            self._behind_since.pop(stream.name, None)
            return replace(stream, current=whole)
        return replace(stream, current=whole, behind_s=now - self._behind_since.setdefault(stream.name, now))
