"""Credit: a node never requests more than it can take, urgent work goes first, and no lane starves."""

from __future__ import annotations

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from mesh.config import LAN
from mesh.subjects import URGENCIES
from node.work import pull_plan
from node.work.pull_plan import (
    LaneView,
    PullRequest,
    effective_urgency,
    most_unstarted,
    must_wait,
    plan_pulls,
    should_cancel_pulls,
    starved,
    surplus,
)
from tests.examples import examples

NOW = 10_000.0
MEANS = st.one_of(st.just(0.0), st.floats(1e-6, 20.0))
AGES = st.one_of(st.just(float("inf")), st.floats(0, 300))


@st.composite
def lane_views(draw, most: int = 6) -> list[LaneView]:
    lanes = draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.sampled_from(["any", "node-x"]), st.sampled_from(URGENCIES)),
            unique=True,
            max_size=most,
        )
    )
    means = {kind: draw(MEANS) for kind in "abc"}
    return [
        LaneView(
            lane,
            means[lane[0]],
            backlog=draw(st.sampled_from([0, 0, 1, 3, 100, 100_000])),
            requested=draw(st.sampled_from([0, 0, 0, 1, 2, 50, 1500])),
            served_at=NOW - draw(AGES),
            waiting_since=draw(st.sampled_from([0.0, NOW - 1, NOW - 7, NOW - 60])),
            cores=draw(st.sampled_from([1, 1, 2, 64])),
            left=draw(st.sampled_from([False, False, True])),
        )
        for lane in lanes
    ]


SLOTS = st.integers(1, 64)
HELD = st.lists(st.tuples(MEANS, st.integers(0, 300)), max_size=3)


@st.composite
def situations(draw) -> tuple[list[LaneView], int, int, list[tuple[float, int]]]:
    slots = draw(SLOTS)
    return draw(lane_views()), slots, draw(st.integers(0, slots)), draw(HELD)


def ask(views: list[LaneView], slots: int, free: int, held: list[tuple[float, int]] | None = None) -> list[PullRequest]:
    return plan_pulls(views, slots=slots, free_slots=free, unstarted=held or [], now=NOW, config=LAN)


def weighed(views: list[LaneView], asks: list[PullRequest], held: list[tuple[float, int]]) -> list[float]:
    """The run time of each task that is requested or held unstarted; unknown kinds count as the whole prefetch."""
    mean_of = {view.lane: view.mean_s for view in views}
    counted = [*held, *((view.mean_s, view.requested) for view in views)]
    counted += [(mean_of[pull.lane], pull.batch) for pull in asks]
    return [mean_s or LAN.prefetch_work_s for mean_s, count in counted for _ in range(count)]


@given(situations())
@example(
    ([LaneView(("a", "any", "low"), 1e-6, requested=1500), LaneView(("b", "any", "low"), served_at=NOW)], 64, 2, [])
)
def test_requested_and_held_tasks_never_exceed_free_slots_and_prefetch(situation) -> None:
    views, slots, free, held = situation
    asks = ask(views, slots, free, held)
    if not asks:
        return
    tasks = sorted(weighed(views, asks, held), reverse=True)
    assert len(tasks) <= free + LAN.prefetch_limit
    # The free slots take the longest tasks; the rest is prefetched work.
    assert sum(tasks[free:]) <= slots * LAN.prefetch_work_s * 1.0001


@given(situations())
def test_nothing_is_requested_from_a_lane_that_is_left_to_others(situation) -> None:
    views, slots, free, held = situation
    left = {view.lane for view in views if view.left}
    asks = ask(views, slots, free, held)
    assert not left & {pull.lane for pull in asks} and not left & starved(views, asks)


@given(st.integers(1, 64), st.integers(0, 64), st.integers(1, 64), st.sampled_from([0.0, 20.0]))
def test_no_more_tasks_are_requested_than_can_start_at_once(slots, free, cores, mean_s) -> None:
    """Such tasks are too long to prefetch. While only some of the slots they need are free, one task keeps those."""
    view = LaneView(("a", "any", "normal"), mean_s, 1000, served_at=NOW, cores=min(cores, slots))
    free = min(free, slots)
    requested = sum(pull.batch for pull in ask([view], slots, free))
    assert requested == (free // view.cores or min(free, 1))


@given(st.integers(1, 64), st.integers(0, 64), st.floats(0, 100) | st.just(float("inf")))
def test_a_task_must_wait_only_while_its_slots_are_used_for_long(cores, free, busy_s) -> None:
    waits = must_wait(cores, free, busy_s)
    assert waits == (cores > free and busy_s > pull_plan.SOON_S)
    assert not (waits and must_wait(cores, max(free, cores), busy_s))


@given(situations())
def test_pulls_name_each_lane_once_and_request_at_least_one_task(situation) -> None:
    views, slots, free, held = situation
    asks = ask(views, slots, free, held)
    assert all(pull.batch >= 1 for pull in asks)
    assert len({pull.lane for pull in asks}) == len(asks)
    assert {pull.lane for pull in asks} <= {view.lane for view in views}


@given(lane_views(), SLOTS)
def test_a_full_node_requests_nothing(views, slots) -> None:
    full = [(LAN.prefetch_work_s, slots)]
    assert ask(views, slots, 0, full) == []
    assert ask(views, slots, 0, [(0.0, slots)]) == []


@given(lane_views(), SLOTS)
def test_unknown_kinds_are_never_prefetched(views, slots) -> None:
    unknown = [LaneView(v.lane, 0.0, v.backlog, 0, v.served_at, v.waiting_since) for v in views]
    for free in (0, 1, slots):
        assert sum(pull.batch for pull in ask(unknown, slots, min(free, slots))) <= free


@given(st.integers(1, 16), st.permutations(URGENCIES))
def test_the_most_urgent_lane_with_work_takes_the_free_slots(slots, order) -> None:
    views = [LaneView(("a", "any", urgency), 0.0, 1000, served_at=NOW) for urgency in order]
    assert ask(views, slots, slots) == [PullRequest(("a", "any", "high"), slots)]


@given(SLOTS, st.sampled_from(URGENCIES), AGES)
def test_near_work_comes_before_far_work_however_long_the_far_work_waited(slots, urgency, age) -> None:
    far = LaneView(("a", "any@us", urgency), backlog=100, served_at=NOW - age, far=True)
    near = LaneView(("a", "any@eu", urgency), backlog=100, served_at=NOW)
    assert [pull.lane for pull in ask([far, near], slots, free=1)] == [near.lane]


@given(st.integers(2, 16), st.integers(2, 6))
def test_equal_lanes_share_the_slots(slots, count) -> None:
    views = [LaneView((f"k{n}", "any", "normal"), 0.0, 1000, served_at=NOW - n) for n in range(count)]
    batches = [pull.batch for pull in ask(views, slots, slots)]
    assert sum(batches) == slots and max(batches) - min(batches) <= max(1, -(-slots // count) - 1)
    assert len(batches) == min(slots, count)


@given(st.integers(2, 32), st.integers(1, 60))
def test_quiet_lanes_leave_a_slot_for_a_lane_that_gets_work(slots, count) -> None:
    quiet = [LaneView((f"k{n}", "any", "low"), 0.01, 0, served_at=NOW - 30) for n in range(count)]
    standing = ask(quiet, slots, slots)
    assert all(pull.batch == 1 for pull in standing) and len(standing) == min(count, slots - 1)
    asked = {pull.lane for pull in standing}
    later = [LaneView(v.lane, v.mean_s, 0, int(v.lane in asked), v.served_at) for v in quiet]
    awake = LaneView(("new", "any", "high"), 0.0, 1, served_at=NOW)
    assert awake.lane in {pull.lane for pull in ask([*later, awake], slots, slots)}


def test_an_unused_lane_gets_no_standing_pull() -> None:
    assert ask([LaneView(("a", "any", "normal"), 0.01, 0, served_at=NOW - 3600)], 4, 4) == []


@given(st.floats(0, 100), st.floats(0, 100), st.sampled_from(URGENCIES))
def test_waiting_only_raises_urgency(waited_s, other_waited_s, urgency) -> None:
    def level(waited_s: float) -> int:
        return effective_urgency(LaneView(("a", "any", urgency), 0, 5, 0, NOW, NOW - waited_s), NOW, LAN)

    assert level(max(waited_s, other_waited_s)) <= level(min(waited_s, other_waited_s)) <= URGENCIES.index(urgency)
    assert level(3 * LAN.low_urgency_wait_s) < URGENCIES.index("high")


def first_start_s(slots: int, busy: tuple[str, float], rare: tuple[str, float]) -> float:
    """Simulate a node with one lane that never empties and one that holds a single task from the beginning.

    Each lane is (urgency, run time). Returns when the single task starts, seconds; infinity when not within a minute.
    """
    lanes = {"busy": (("b", "any", busy[0]), busy[1]), "rare": (("r", "any", rare[0]), rare[1])}
    now, running, waiting = NOW, [], []
    served = dict.fromkeys(lanes, NOW - 30.0)
    while now < NOW + 60:
        running = [ends for ends in running if ends > now]
        while waiting and len(running) < slots:
            name = waiting.pop(0)
            if name == "rare":
                return now - NOW
            running.append(now + lanes[name][1])
        views = [
            LaneView(*lanes["busy"], 10**6, 0, served["busy"], max(NOW, served["busy"])),
            LaneView(*lanes["rare"], int("rare" not in waiting), 0, served["rare"], NOW),
        ]
        held = [(lanes[name][1], waiting.count(name)) for name in lanes]
        for pull in plan_pulls(
            views, slots=slots, free_slots=slots - len(running), unstarted=held, now=now, config=LAN
        ):
            name = "busy" if pull.lane == lanes["busy"][0] else "rare"
            waiting += [name] * (pull.batch if name == "busy" else 1)
            served[name] = now
        now = min([*running, now + 0.05]) if len(running) == slots else now + 0.001
    return float("inf")


RUN_TIMES = st.sampled_from([0.002, 0.02, 0.2, 3.0])


@settings(max_examples=examples(40))
@given(st.integers(1, 4), RUN_TIMES, RUN_TIMES)
def test_low_work_starts_within_bounds_under_an_endless_urgent_load(slots, busy_s, rare_s) -> None:
    bound_s = 3 * LAN.low_urgency_wait_s + 2 * busy_s + 2 * LAN.prefetch_work_s
    assert first_start_s(slots, ("high", busy_s), ("low", rare_s)) <= bound_s


@given(st.integers(1, 4), RUN_TIMES, RUN_TIMES)
def test_urgent_work_starts_as_soon_as_prefetched_work_has_run(slots, busy_s, rare_s) -> None:
    assert first_start_s(slots, ("normal", busy_s), ("high", rare_s)) <= 2 * busy_s + 2 * LAN.prefetch_work_s


@given(situations())
def test_pulls_are_cancelled_only_for_a_lane_that_gets_a_pull_then(situation) -> None:
    views, slots, free, held = situation
    views = [replace(view, idle=view.requested > 0 and index % 2 == 0) for index, view in enumerate(views)]
    starving = starved(views, ask(views, slots, free, held))
    facts = {"slots": slots, "free_slots": free, "unstarted": held, "now": NOW, "config": LAN}
    if should_cancel_pulls(starving, views, **facts):
        afresh = [replace(view, requested=0, backlog=0 if view.idle else view.backlog, idle=False) for view in views]
        assert starving & {pull.lane for pull in ask(afresh, slots, free, held)}
        # One cancellation is enough: none of the new pulls is idle.
        assert not should_cancel_pulls(starving, afresh, **facts)


@given(st.integers(1, 16), st.integers(0, 3), st.floats(1.0, 20.0))
def test_long_work_does_not_wait_for_standing_pulls_on_empty_lanes(slots, believed, mean_s) -> None:
    idle = LaneView(("i", "any", "high"), mean_s, believed, slots, NOW - 1, NOW - 1, idle=True)
    work = LaneView(("w", "any", "low"), mean_s, 5, 0, NOW)
    starving = starved([idle, work], ask([idle, work], slots, slots))
    assert starving == {work.lane}
    facts = {"slots": slots, "free_slots": slots, "unstarted": [], "now": NOW, "config": LAN}
    assert should_cancel_pulls(starving, [idle, work], **facts)
    assert not should_cancel_pulls(starving, [replace(idle, idle=False), work], **facts)


KINDS = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2000), max_size=3)


@given(KINDS, st.dictionaries(st.sampled_from("abc"), MEANS), SLOTS)
def test_surplus_long_work_is_returned_and_work_that_starts_soon_stays(unstarted, means_s, slots) -> None:
    back = surplus(unstarted, means_s, slots, LAN)
    for kind, count in unstarted.items():
        mean_s, left = means_s.get(kind, 0.0), count - back.get(kind, 0)
        assert 0 <= back.get(kind, 0) <= count
        if kind in back:
            assert count * mean_s > slots, "more than a second of work for each slot"
            assert left == most_unstarted(mean_s, slots, LAN) >= slots, "every slot has its next task"
        else:
            assert count * mean_s <= slots or count <= most_unstarted(mean_s, slots, LAN)
    assert not surplus({kind: count - back.get(kind, 0) for kind, count in unstarted.items()}, means_s, slots, LAN)


@given(gaps=st.lists(st.floats(0, 2), max_size=40))
def test_scans_because_of_hints_start_at_once_but_never_more_than_a_few_in_a_second(gaps):
    now, started = 100.0, list[float]()
    for gap in gaps:
        now += gap
        now += pull_plan.scan_pause_s(started[-pull_plan.HINT_SCANS :], now)
        started.append(now)
    assert (
        started[: pull_plan.HINT_SCANS] == list(itertools.accumulate(gaps[: pull_plan.HINT_SCANS], initial=100.0))[1:]
    )
    for first, beyond in zip(started, started[pull_plan.HINT_SCANS :], strict=False):
        assert beyond - first >= pull_plan.HINT_WINDOW_S - 1e-9
