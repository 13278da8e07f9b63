"""Arrivals are the ended tasks plus the growth of the queue, by the region that the work comes from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.leader import metrics
from mesh.membership.member import Member
from mesh.messages import Heartbeat, NodeRecord, encode

LANE, EUROPE = ("echo", "any", "normal"), ("echo", "any@eu", "normal")


def member(tasks: int, incarnation: str = "1") -> Member:
    record = NodeRecord(id="a", name="a", incarnation=incarnation, slots=4)
    return Member(record, "up", Heartbeat(node="a", incarnation=incarnation, seq=1, rates={"echo": (0.5, tasks)}))


def test_a_minute() -> None:
    none, memory = metrics.sample({LANE: (2, 1, 9)}, [member(10)], metrics.Memory(), 1000.0)
    assert none == [], "the first sample only stores the counters"
    (minute,), memory = metrics.sample({LANE: (7, 2, 15)}, [member(16)], memory, 1060.0)
    assert minute["ends"] == 6 and minute["arrivals"] == 12 and minute["queued"] == 7 and minute["running"] == 2
    assert minute["work_s"] == 3.0 and minute["interval_s"] == 60.0 and minute["slots"] == 4 and minute["region"] == ""
    (after,), _ = metrics.sample({}, [member(3, "2")], memory, 1120.0)
    assert after["ends"] == 3 and after["arrivals"] == 0, "a restarted node counts from zero"


def test_work_is_counted_by_its_region() -> None:
    _, memory = metrics.sample({LANE: (0, 0, 100), EUROPE: (4, 0, 0)}, [member(100)], metrics.Memory(), 1000.0)
    (nowhere, europe), _ = metrics.sample({LANE: (0, 0, 110), EUROPE: (34, 0, 30)}, [member(140)], memory, 1060.0)
    assert (nowhere["region"], nowhere["ends"], nowhere["arrivals"]) == ("", 10, 10)
    assert (europe["region"], europe["ends"], europe["arrivals"]) == ("eu", 30, 60)
    assert nowhere["work_s"] == 5.0 and europe["work_s"] == 15.0


def test_readers_decode_what_is_written_with_the_shares_of_the_pools() -> None:
    bound = ("echo", "p-0123456789", "normal")
    _, memory = metrics.sample({LANE: (0, 0, 100), bound: (0, 0, 0)}, [member(100)], metrics.Memory(), 1000.0)
    (written,), _ = metrics.sample({LANE: (0, 0, 130), bound: (0, 0, 10)}, [member(140)], memory, 1060.0)
    read = metrics.decode_sample(encode(written | {"fence": 7}))
    assert (read.kind, read.region, read.at, read.interval_s, read.fence) == ("echo", "", 1060.0, 60.0, 7)
    assert (read.arrivals, read.ends, read.work_s) == (40, 40, 20.0)
    assert read.pools == {"p-0123456789": 0.25} and read.pool_shares == {metrics.OPEN: 0.75, "p-0123456789": 0.25}


@given(st.integers(0, 10**9), st.dictionaries(st.text(max_size=3), st.integers(0, 10**6), min_size=1, max_size=6))
def test_shares_are_whole_and_lose_nothing(total: int, weights: dict[str, int]) -> None:
    parts = metrics.shares(total, weights)
    assert sum(parts.values()) == total and parts.keys() == weights.keys()
    whole = sum(weights.values())
    if whole:
        assert all(abs(parts[name] - total * weights[name] / whole) <= 1 for name in weights)
