"""Whether another node could start a task now, as the last heartbeats of the members say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from mesh.kinds.table import KINDS
from mesh.lanes import Lane
from mesh.membership.member import Member
from mesh.scheduling.placement import can_start
from node.work.pull_plan import LEFT_S

#: An answer is cached for this long, seconds: a node plans its pulls thousands of times a second.
KEEP_S = 0.25


class OtherNodes:
    """The other members of the mesh, for the decision whether a task that has to wait here belongs to one of them."""

    def __init__(
        self, me: str, members: Callable[[], Iterable[Member]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._me, self._members, self._clock = me, members, clock
        self._read_at = float("-inf")
        self._others: list[Member] = []
        self._answers: dict[tuple[str, str], bool] = {}
        self._left_since: dict[Lane, float] = {}

    def can_start(self, kind: str, requires: dict[str, Any]) -> bool:
        """Whether one of them could start such a task now; the answer may be KEEP_S old, and its heartbeats older."""
        now = self._clock()
        if now - self._read_at > KEEP_S:
            self._read_at = now
            self._answers.clear()
            self._others = [member for member in self._members() if member.record.id != self._me and member.free_slots]
        key = kind, repr(requires)
        answer, spec = self._answers.get(key), KINDS.get(kind)
        if answer is None:
            answer = spec is not None and can_start(requires, kind, spec.resources.cores, self._others)
            self._answers[key] = answer
        return answer

    def take(self, lane: Lane, requires: dict[str, Any]) -> bool:
        """Whether a lane whose tasks would have to wait here is left to one of them, for LEFT_S at most.

        `requires`: the class of requirements of the lane.
        """
        if not self.can_start(lane[0], requires):
            self._left_since.pop(lane, None)
            return False
        now = self._clock()
        return now - self._left_since.setdefault(lane, now) < LEFT_S
