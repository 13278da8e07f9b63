"""The history loses no work, counts no sample twice, and no step depends on later samples."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.kinds.base import Resources
from mesh.lanes import Lane
from mesh.leader.metrics import OPEN, Sample
from mesh.membership.member import Member
from mesh.messages import Capabilities, Heartbeat, KindInfo, NodeRecord
from scaling.forecast.history import (
    FINEST_MOST,
    HOLD_S,
    LONGEST_S,
    MINUTE_S,
    THINNED_MOST,
    THINNED_S,
    History,
    bounds,
    series,
    step_of,
)
from scaling.observation.observe import ArrivalWindow, Facts, count_arrivals, observe, slots_per_task

T0 = 1_800_000_000.0
ECHO = ("echo", OPEN)
ONE = {ECHO: 1.0}
#: (seconds the sample covers, tasks that arrived)
INTERVALS = st.lists(st.tuples(st.floats(20, 200), st.integers(0, 500)), min_size=3, max_size=40)


def samples_of(intervals, begin: float = T0, fence: int = 1, kind: str = "echo", task_s: float = 2.0) -> list[Sample]:
    """Consecutive samples whose tasks each take `task_s`."""
    found, at = [], begin
    for interval_s, arrivals in intervals:
        at += interval_s
        found.append(Sample(kind, at, interval_s, arrivals, 1, task_s, fence=fence))
    return found


def history(samples: list[Sample], now: float = 2 * T0) -> History:
    made = History()
    for sample in samples:
        made.add(sample, now)
    return made


def loads(made: History, end: float, begin: float = T0) -> list[float]:
    return list(series(made, ONE, (begin, begin + (end - begin) // MINUTE_S * MINUTE_S, MINUTE_S)).loads)


@given(INTERVALS)
def test_samples_that_drift_against_the_minute_lose_no_work(intervals):
    samples = samples_of(intervals)
    made = history(samples)
    whole = sum(arrivals for _, arrivals in intervals) * 2.0
    assert sum(made.work_s[ECHO].values() if whole else ()) == pytest.approx(whole)
    assert sum(made.covered_s.values()) == pytest.approx(samples[-1].at - T0)
    last = ceil(samples[-1].at / MINUTE_S) * MINUTE_S
    found = series(made, ONE, (T0, last, MINUTE_S)).loads
    # The last minute is not over: its rate is that of the part with samples, or the last rate when that is too short.
    # Times of today have a resolution of a quarter of a microsecond, and shares of a sample that error.
    assert sum(found[:-1]) * MINUTE_S <= whole * (1 + 1e-6) + 1e-6
    assert all(value >= 0 for value in found)


@given(INTERVALS, st.data())
def test_a_repeated_sample_counts_once(intervals, data):
    samples = samples_of(intervals)
    again = [copy for sample in samples for copy in [sample] * data.draw(st.integers(1, 3))]
    assert loads(history(again), samples[-1].at) == loads(history(samples), samples[-1].at)


@given(st.lists(st.integers(0, 500), min_size=5, max_size=30), st.floats(1, 59))
def test_minutes_that_two_leaders_sampled_count_once(arrivals, off_s):
    """Both see a steady load: the samples of one leader and of both give the same history."""
    steady = [(60.0, 120)] * len(arrivals)
    samples, other = samples_of(steady), samples_of(steady, T0 + off_s, fence=2)
    both = sorted([*samples, *other], key=lambda sample: sample.at)
    assert loads(history(both), samples[-1].at) == pytest.approx([4.0] * len(arrivals))


@given(INTERVALS, INTERVALS, st.floats(0, 3000))
def test_no_step_depends_on_later_samples(intervals, later, gap_s):
    samples = samples_of(intervals)
    end = samples[-1].at // MINUTE_S * MINUTE_S
    before = loads(history(samples), end)
    assert loads(history([*samples, *samples_of(later, samples[-1].at + gap_s, 2, task_s=9.0)]), end) == before


@given(st.floats(1, 7200))
def test_a_gap_holds_the_load_for_a_while_and_then_counts_as_idle(gap_s):
    first = samples_of([(60.0, 120)] * 5)
    begin = first[-1].at + gap_s
    found = loads(history([*first, *samples_of([(60.0, 30)] * 3, begin, 2)]), begin + 180)
    # A minute of which samples cover at least a quarter has the rate of the samples.
    quiet = found[5 : int((begin - T0) // MINUTE_S)]
    held = round(HOLD_S / MINUTE_S)
    assert found[:5] == pytest.approx([4.0] * 5)
    assert quiet == pytest.approx([4.0] * min(held, len(quiet)) + [0.0] * max(0, len(quiet) - held))
    assert found[-1] == pytest.approx(1.0)


WRONG = st.one_of(
    st.tuples(st.floats(-1e6, 0), st.just(T0)),
    st.tuples(st.floats(LONGEST_S + 1, 1e9), st.just(T0)),
    st.tuples(st.just(60.0), st.floats(T0 + 5000, 1e12)),
    st.sampled_from([(float("nan"), T0), (60.0, float("nan")), (60.0, float("-inf"))]),
)


@given(st.lists(WRONG, min_size=1, max_size=9), st.integers(0, 20))
def test_samples_of_a_clock_that_jumped_are_ignored_and_do_not_count_as_idle(wrong, place):
    samples, now = samples_of([(60.0, 120)] * 20), T0 + 1200 + 3000
    odd = [Sample("echo", at, interval_s, 1000, 1, 99.0, fence=9) for interval_s, at in wrong]
    made = history([*samples[:place], *odd, *samples[place:]], now)
    assert loads(made, samples[-1].at) == pytest.approx([4.0] * 20)
    assert bounds(made, now) == (T0, T0 + 1200, MINUTE_S), (
        "while such samples arrive, the last valid step is the newest"
    )
    assert bounds(history(samples), now) == (T0, T0 + 1200 + 3000, MINUTE_S), "no samples count as idle"


@given(st.floats(0, 400 * 86400))
def test_steps_are_the_finest_that_a_fit_has_time_for(span_s):
    step_s = step_of(span_s)
    assert span_s <= (FINEST_MOST if step_s == MINUTE_S else THINNED_MOST) * step_s
    finer = [length for length in (MINUTE_S, *THINNED_S) if length < step_s]
    if finer:
        assert span_s > (FINEST_MOST if finer[-1] == MINUTE_S else THINNED_MOST) * finer[-1]


@given(st.lists(st.integers(0, 500), min_size=15, max_size=60))
def test_thinned_steps_are_the_means_of_their_minutes(arrivals):
    begin = T0 // 300 * 300
    made = history(samples_of([(60.0, count) for count in arrivals], begin))
    minutes = loads(made, begin + len(arrivals) * 60, begin)
    steps = len(arrivals) // 5
    found = series(made, ONE, (begin, begin + steps * 300, 300.0))
    assert found.end == begin + steps * 300
    assert found.loads == pytest.approx([sum(minutes[5 * step : 5 * step + 5]) / 5 for step in range(steps)])


@given(
    st.integers(1, 16), st.sampled_from([1, 2, 40, "all"]), st.floats(0.1, 60), st.integers(1, 300),
    st.sampled_from(["any", "any@eu", "p-0123456789"]),
)  # fmt: skip
def test_the_load_of_the_history_is_the_observed_load(slots, cores, task_s, arrivals, pool_of_lanes):
    """The same minute, once observed in the lanes, once in the sample."""
    lane: Lane = ("echo", pool_of_lanes, "normal")
    resources = {"echo": Resources(cores=cores)}
    heartbeat = Heartbeat(node="a", incarnation="1", seq=1, rates={"echo": (task_s, 10)})
    able = Capabilities(kinds=(KindInfo("echo", True),))
    record = NodeRecord(id="a", name="a", incarnation="1", slots=slots, capabilities=able, region="eu")
    member = Member(record, "up", heartbeat)
    seen = count_arrivals(
        count_arrivals(ArrivalWindow(), {lane: (0, 0, 5)}, 60.0, T0), {lane: (arrivals, 0, 5)}, 60.0, T0 + 60
    )
    requires = {"p-0123456789": {"region": "eu"}}
    looked = observe(Facts({lane: (arrivals, 0, 5)}, requires, resources, [member], {}), seen, ())
    ((work, name),) = looked.groups.items()
    pool = next(pool for pool in looked.pools if pool.name == name)
    asked_more = {} if pool_of_lanes.startswith("any") else {pool_of_lanes: 1.0}
    made = history([Sample("echo", T0 + 60, 60.0, arrivals, 10, 10 * task_s, pools=asked_more)])
    assert name == ("cpu.eu" if asked_more else "cpu")
    nodes = {work: slots_per_task("echo", resources, pool.slots) / pool.slots}
    assert series(made, nodes, (T0, T0 + 60, MINUTE_S)).loads == pytest.approx((pool.load,))


def test_tasks_count_with_the_latest_run_time_of_their_kind():
    untimed = Sample("echo", T0 + 60, 60.0, 600, 0, 0.0)
    timed = Sample("echo", T0 + 120, 60.0, 60, 60, 120.0)
    long_after = Sample("echo", T0 + 120 + 30 * 86400, 60.0, 60, 60, 240.0)
    made = history([untimed, timed, long_after])
    assert loads(made, T0 + 120) == [0.0, 2.0]
    begin = long_after.at - 60
    assert loads(made, begin + 60, begin) == pytest.approx([4.0])


def test_work_with_requirements_is_counted_apart_and_old_days_are_forgotten():
    made = history([Sample("echo", T0 + 60, 60.0, 60, 60, 60.0, pools={"p-1": 0.5, "p-2": 0.25})])
    assert loads(made, T0 + 60) == [0.25]
    assert series(made, {("echo", "p-1"): 1.0, ECHO: 1.0}, (T0, T0 + 60, MINUTE_S)).loads == (0.75,)
    made.forget(T0 - 1)
    assert made.covered_s
    made.forget(T0 + 2 * 86400)
    assert not made.covered_s and not made.work_s[ECHO] and bounds(made, T0) is None
