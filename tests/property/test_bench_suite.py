"""The benchmark protocol: repeat until steady or capped, report no difference within noise, store line by line."""

from __future__ import annotations

from statistics import median

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.suite import repetition
from bench.suite.compare import SMALLEST, by_chance, compare
from bench.suite.model import SCHEMA, Conditions, Outcome, from_line, to_line
from bench.suite.passes import merged
from bench.suite.references import Row, references
from bench.suite.repetition import FULL, QUICK, Rules, core_spread, stop, summary
from bench.suite.table import BENCHMARKS
from mesh.benchmarks import NAMES
from mesh.kinds.table import validate

SAMPLES = st.lists(st.floats(0.1, 1e9), min_size=1, max_size=25)
RULES = st.sampled_from([FULL, QUICK, Rules(least=3, most=4, steady=0.01, cap_s=1.0)])


def outcome(samples: list[float], higher: bool = True, **changes: object) -> Outcome:
    facts = {"schema": SCHEMA, "run": "r", "benchmark": "b", "state": "ok", "at": 0.0, "took_s": 1.0}
    return Outcome(**(facts | {"figures": {"rate": summary(samples, "1/s", higher)}} | changes))


@given(SAMPLES, st.floats(0.001, 1000), RULES)
def test_it_always_stops_and_with_too_few_samples_only_at_the_time_cap(samples, elapsed_s, rules) -> None:
    why = stop(samples, elapsed_s, rules)
    if len(samples) >= rules.most:
        assert why
    if why and len(samples) < rules.least:
        assert elapsed_s + elapsed_s / len(samples) > 2 * rules.cap_s
    if why.startswith("steady"):
        assert core_spread(samples) < rules.steady


@given(st.floats(1, 1e6), st.integers(5, 25))
def test_equal_samples_are_steady_and_have_no_spread(value, count) -> None:
    assert stop([value] * count, 0.001, FULL)
    made = summary([value] * count, "x", True)
    assert (made.median, made.low, made.high, made.spread) == (value, value, value, 0.0)


@given(SAMPLES)
def test_the_interval_holds_the_median(samples) -> None:
    made = summary(samples, "x", True)
    assert made.low <= made.median == median(samples) <= made.high
    assert core_spread(samples) <= made.spread + 1e-9 or len(samples) < 4


@given(SAMPLES, SAMPLES)
def test_chance_is_the_same_from_both_sides(a, b) -> None:
    assert abs(by_chance(a, b) - by_chance(b, a)) < 1e-9 and 0.0 < by_chance(a, b) <= 1.0


@given(st.lists(st.floats(0.99, 1.01), min_size=5, max_size=12), st.floats(1.0, 1e6), st.booleans())
def test_a_run_does_not_differ_from_itself(noise, value, higher) -> None:
    samples = [value * factor for factor in noise]
    (found,) = compare([outcome(samples, higher)], [outcome(list(reversed(samples)), higher)])
    assert found.verdict == "no difference"


@given(st.lists(st.floats(0.98, 1.02), min_size=5, max_size=9), st.floats(1.0, 1e6), st.booleans())
def test_a_planted_slowdown_of_a_tenth_is_found(noise, value, higher) -> None:
    baseline = [value * factor for factor in noise]
    after = [factor * 0.9 for factor in baseline]
    (found,) = compare([outcome(baseline, higher)], [outcome(after, higher)])
    assert found.verdict == ("worse" if higher else "better") and found.change < -SMALLEST
    (back,) = compare([outcome(after, higher)], [outcome(baseline, higher)])
    assert back.verdict == ("better" if higher else "worse")


@pytest.mark.parametrize(
    ("figure", "memory", "verdict"),
    [(0.9, 0.92, "not comparable"), (0.9, 1.1, "worse"), (0.9, 1.0, "worse"), (0.7, 0.92, "worse"),
     (1.12, 1.1, "not comparable"), (1.0, 0.9, "no difference")],
)  # fmt: skip
@pytest.mark.parametrize("higher", [True, False])
def test_a_change_that_memory_bandwidth_explains_is_no_difference(figure, memory, verdict, higher) -> None:
    noise = [0.99, 0.995, 1.0, 1.0, 1.005, 1.01, 1.0]
    made = [
        outcome(
            [100 * factor * (speed if higher else 1 / speed) for factor in noise],
            higher,
            conditions=Conditions(memory_gb_s=tuple(10 * factor * gb_s for factor in noise)),
        )
        for speed, gb_s in ((1.0, 1.0), (figure, memory))
    ]
    (found,) = compare(*([run_outcome] for run_outcome in made))
    assert found.verdict == verdict
    assert ("memory" in found.reason) is (verdict == "not comparable")
    runs = [
        [
            msgspec.structs.replace(run_outcome, conditions=Conditions()),
            msgspec.structs.replace(run_outcome, benchmark="other"),
        ]
        for run_outcome in made
    ]
    assert compare(*runs)[0].verdict == verdict, "the conditions of other benchmarks of the run count too"
    (unknown,) = compare([outcome([100.0] * 7)], [msgspec.structs.replace(made[1], conditions=Conditions())])
    assert unknown.verdict != "not comparable"


def test_outcomes_of_different_conditions_are_not_compared() -> None:
    good = outcome([1.0] * 5)
    for other, why in (
        (outcome([2.0] * 5, payload={"n": 2}), "different inputs"),
        (outcome([2.0] * 5, cores=3), "0 and 3 cores"),
        (outcome([2.0] * 5, conditions=Conditions(busy="others had 50 %")), "busy: others had 50 %"),
        (outcome([2.0] * 5, state="wrong answer", reason="42", figures={}), "wrong answer (42)"),
    ):
        (found,) = compare([good], [other])
        assert found.verdict == "not comparable" and why in found.reason
    (found,) = compare([good], [])
    assert found.verdict == "not comparable" and "only one" in found.reason


@given(SAMPLES, st.text(max_size=20))
def test_an_outcome_survives_encoding_as_a_line(samples, reason) -> None:
    made = outcome(samples, reason=reason, payload={"a": [1, {"b": None}]})
    assert from_line(to_line(made)) == made and to_line(made).count(b"\n") == 1


def test_the_suite_has_the_eight_benchmarks_and_each_payload_is_valid() -> None:
    assert list(BENCHMARKS) == list(NAMES)
    figures = [figure.name for benchmark in BENCHMARKS.values() for part in benchmark.parts for figure in part.figures]
    assert len(figures) == len(set(figures)), "a figure has one meaning"
    for benchmark in BENCHMARKS.values():
        for part in benchmark.parts:
            for payload in (part.payload, part.quick):
                validate(part.kind, part.make(payload) if part.make else payload)
    assert {reference.figure for reference in references()} <= set(figures), (
        "every published figure has a figure of the suite beside it"
    )


def test_a_ratio_is_only_given_where_the_figures_are_comparable() -> None:
    for reference in references():
        row = Row(reference.figure, "x", 10.0, reference)
        assert (row.ratio is None) is (reference.relation == "not comparable")
        assert reference.source and reference.condition and reference.how and reference.device


def test_full_rules_are_those_of_the_methodology() -> None:
    full = repetition.FULL
    assert full.passes == 2 and full.passes * full.least >= 5 and full.steady == 0.05
    assert full.passes * full.cap_s == 60.0


@given(st.lists(st.lists(st.floats(1, 100), min_size=3, max_size=5), min_size=1, max_size=3))
def test_passes_become_one_outcome_with_all_samples(samples) -> None:
    single = outcome([1.0])
    passes = [
        msgspec.structs.replace(single, at=float(number), took_s=1.0, figures={"f": summary(part, "x", True)})
        for number, part in enumerate(samples)
    ]
    whole = merged(passes)
    assert whole.figures["f"].samples == tuple(sample for part in samples for sample in part)
    assert whole.figures["f"].median == median([sample for part in samples for sample in part])
    assert (whole.at, whole.took_s, whole.state) == (0.0, float(len(samples)), "ok")
    assert merged(passes, "stopped").reason.endswith("stopped")


def test_a_failed_pass_decides_the_state_of_the_benchmark() -> None:
    good = outcome([1.0])
    was = Conditions(load_before=1.5, busy="1.5 of 2 cores were in use before it")
    busy = msgspec.structs.replace(good, conditions=was)
    assert merged([busy, good]).conditions.busy and merged([busy, good]).conditions.load_before == 1.5
    bad = msgspec.structs.replace(good, state="wrong answer", figures={}, reason="42 is not 7")
    assert (merged([good, bad]).state, merged([good, bad]).figures) == ("wrong answer", {})
