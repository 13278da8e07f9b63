"""What the garbage collection removes: lanes unused for long, and blobs whose last task has ended."""

from __future__ import annotations

from mesh.bus.streams import LaneInfo
from mesh.leader.garbage_collection import CROWDED_IDLE_S, POOL_KEPT_S, idle_lanes, unused_pools
from mesh.tasks.blob_refs import orphans

A, B = ("a", "any", "normal"), ("b", "any", "normal")
IDLE_S = 600.0


def test_a_lane_is_removed_after_it_was_empty_and_idle_for_long() -> None:
    lanes = {A: LaneInfo(0, 0, 7), B: LaneInfo(0, 0, 9)}
    gone, memory = idle_lanes(lanes, {}, 1000.0, IDLE_S)
    assert gone == []
    gone, memory = idle_lanes(lanes, memory, 1000.0 + IDLE_S - 1, IDLE_S)
    assert gone == []
    gone, memory = idle_lanes(lanes | {B: LaneInfo(0, 0, 10)}, memory, 1000.0 + IDLE_S, IDLE_S)
    assert gone == [A], "b delivered something meanwhile"
    gone, _ = idle_lanes({B: LaneInfo(0, 0, 10)}, memory, 1000.0 + 2 * IDLE_S, IDLE_S)
    assert gone == [B]


def test_a_lane_with_work_or_work_in_flight_stays() -> None:
    for info in (LaneInfo(1, 0, 7), LaneInfo(0, 1, 7)):
        _, memory = idle_lanes({A: info}, {}, 0.0, IDLE_S)
        gone, memory = idle_lanes({A: info}, memory, 10 * IDLE_S, IDLE_S)
        assert gone == []
        gone, _ = idle_lanes({A: LaneInfo(0, 0, 7)}, memory, 10 * IDLE_S + 1, IDLE_S)
        assert gone == [], "the time counts from when it was empty"


def test_while_many_lanes_are_open_empty_ones_for_requirements_go_first() -> None:
    special, plain, busy = ("a", "p-0123456789", "normal"), ("a", "any@eu", "normal"), ("a", "node-n1", "normal")
    lanes = {special: LaneInfo(0, 0, 7), plain: LaneInfo(0, 0, 7), busy: LaneInfo(1, 0, 7)}
    _, memory = idle_lanes(lanes, {}, 0.0, IDLE_S, crowded=True)
    gone, memory = idle_lanes(lanes, memory, CROWDED_IDLE_S - 1, IDLE_S, crowded=True)
    assert gone == []
    gone, _ = idle_lanes(lanes, memory, CROWDED_IDLE_S, IDLE_S, crowded=True)
    assert gone == [special], "never one that has work, and lanes that anybody needs as late as ever"
    gone, _ = idle_lanes(lanes, memory, CROWDED_IDLE_S, IDLE_S)
    assert gone == []


def test_requirements_are_forgotten_when_they_have_no_lane_for_long() -> None:
    lanes = [("a", "p-used", "normal")]
    gone, since = unused_pools(["p-used", "p-old"], lanes, {}, 0.0)
    assert gone == []
    gone, since = unused_pools(["p-used", "p-old"], [*lanes, ("a", "p-old", "low")], since, POOL_KEPT_S)
    assert gone == [], "it has a lane again"
    gone, since = unused_pools(["p-used", "p-old"], lanes, since, POOL_KEPT_S + 1)
    assert gone == []
    assert unused_pools(["p-used", "p-old"], lanes, since, 2 * POOL_KEPT_S + 1)[0] == ["p-old"]


def test_a_blob_is_removed_with_the_last_task_that_names_it() -> None:
    keys = ["b-t1.named", "b-t1.c1-1", "b-t1.c1-2", "b-t2.named", "b-t3.c1-1", "b-k4.named"]
    assert orphans(keys) == {"b-t2"}, "in use; its task is about to be named; to be kept"
    assert orphans([key for key in keys if not key.startswith("b-t1.c1")]) == {"b-t1", "b-t2"}
