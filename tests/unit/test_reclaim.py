"""What `plan_reclaim` remembers between cycles."""

from __future__ import annotations

from mesh.leader import reclaim
from mesh.leader.reclaim import DeadNode, Kick, Memory, Reclaim
from mesh.messages import Held

DEAD = DeadNode("a", "1", (Held(7, 1, "reply", "t-1"),), frozenset({("S", 3)}))


def test_a_kick_that_did_not_help_is_repeated_and_a_reclaim_is_not() -> None:
    actions, memory = reclaim.plan_reclaim([DEAD], {}, Memory(), 0.0)
    assert actions == [Kick("a", "S", 3), Reclaim("a", "1", "reply", 7, 1)]
    assert reclaim.plan_reclaim([DEAD], {}, memory, reclaim.KICK_AGAIN_S - 0.1)[0] == []
    assert reclaim.plan_reclaim([DEAD], {}, memory, reclaim.KICK_AGAIN_S)[0] == [Kick("a", "S", 3)]


def test_a_reclaimed_delivery_is_remembered_as_long_as_an_announcement_may_arrive() -> None:
    _, memory = reclaim.plan_reclaim([DEAD], {}, Memory(), 0.0)
    _, memory = reclaim.plan_reclaim([], {}, memory, reclaim.REMEMBER_S - 1)
    assert (7, 1) in memory.reclaimed
    _, memory = reclaim.plan_reclaim([], {}, memory, reclaim.REMEMBER_S + 1)
    assert memory == Memory()
