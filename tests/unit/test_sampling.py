"""Arrivals are what ended plus what the queue grew."""

from __future__ import annotations

from mesh import sampling
from mesh.messages import Beat, NodeRecord
from mesh.placement import Member

LANE = ("echo", "any", "normal")


def member(tasks: int, incarnation: str = "1") -> Member:
    record = NodeRecord(id="a", name="a", incarnation=incarnation, slots=4)
    return Member(record, "up", Beat(node="a", incarnation=incarnation, seq=1, rates={"echo": (0.5, tasks)}))


def test_a_minute() -> None:
    none, memory = sampling.sample({LANE: (2, 1)}, [member(10)], sampling.Memory(), 1000.0)
    assert none == [], "the first look only counts"
    (one,), memory = sampling.sample({LANE: (7, 2)}, [member(16)], memory, 1060.0)
    assert one["ends"] == 6 and one["arrivals"] == 12 and one["queued"] == 7 and one["running"] == 2
    assert one["work_s"] == 3.0 and one["interval_s"] == 60.0 and one["slots"] == 4
    (after,), _ = sampling.sample({}, [member(3, "2")], memory, 1120.0)
    assert after["ends"] == 3 and after["arrivals"] == 0, "a restarted node counts from nought"
