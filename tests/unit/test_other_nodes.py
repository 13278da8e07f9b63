"""Lanes are left to other nodes while one of them could start a task, but never for ever."""

from __future__ import annotations

from mesh.membership.member import Member
from mesh.messages import Capabilities, Heartbeat, KindInfo, NodeRecord
from node.work import other_nodes
from node.work.other_nodes import OtherNodes
from node.work.pull_plan import LEFT_S

LANE = ("echo", "any", "normal")


def member(node: str, cores_used: int) -> Member:
    record = NodeRecord(
        id=node, name=node, incarnation="1", slots=2, capabilities=Capabilities(kinds=(KindInfo("echo", True),))
    )
    return Member(record, heartbeat=Heartbeat(node=node, incarnation="1", seq=1, cores_used=cores_used))


class Clock:
    """A clock that stands still between the steps of a test."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_only_free_slots_of_others_count_and_are_looked_up_now_and_then() -> None:
    clock = Clock()
    members = [member("me", 0), member("other", 2)]
    others = OtherNodes("me", lambda: members, clock)
    assert not others.can_start("echo", {}) and not others.can_start("no such kind", {})
    members[1] = member("other", 1)
    assert not others.can_start("echo", {}), "the answer is kept for a moment"
    clock.now += other_nodes.KEEP_S * 1.1
    assert others.can_start("echo", {}) and not others.can_start("echo", {"cores": 2})


def test_a_lane_that_the_others_do_not_take_is_left_to_them_for_a_while_only() -> None:
    clock = Clock()
    members = [member("other", 0)]
    others = OtherNodes("me", lambda: members, clock)
    for _ in range(2):
        assert others.take(LANE, {})
        clock.now += LEFT_S * 0.9
        assert others.take(LANE, {})
        clock.now += LEFT_S * 0.2
        assert not others.take(LANE, {}), "it may have a reason not to take them"
        members[0] = member("other", 2)
        clock.now += 1
        assert not others.take(LANE, {})
        members[0] = member("other", 0)
        clock.now += 1
