"""The arithmetic of a load test: the schedule of requests, and when the load generator is the limit."""

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from node.workloads.web import plan
from node.workloads.web.figures import SHORTEST_S, Record, figures
from node.workloads.web.generator import DIGITS, LONGEST_US
from node.workloads.web.plan import assess, due_before, due_ns, processes, shares
from node.workloads.web_server_load import merged, times
from tests.examples import examples


@given(rate=st.floats(0.01, 200_000), count=st.integers(1, 8), start=st.integers(0, 10**15), span=st.integers(0, 10**9))
def test_requests_due_before_a_time_are_counted_exactly(rate, count, start, span):
    found = [due_before(start + span, index, count, start, rate) for index in range(count)]
    for index, number in enumerate(found):
        assert due_ns(number, index, count, start, rate) >= start + span
        assert number == 0 or due_ns(number - 1, index, count, start, rate) < start + span
    # Together they send what one generator would send.
    assert sum(found) == due_before(start + span, 0, 1, start, rate)


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_shares_add_up_to_the_total_and_are_even(total, count):
    parts = shares(total, count)
    assert sum(parts) == total and max(parts) - min(parts) <= 1


@given(st.integers(1, 512), st.integers(1, 1024), st.booleans(), st.none() | st.integers(1, 16))
def test_every_generator_has_a_connection_and_every_own_server_a_purpose(cores, connections, own, servers):
    generators, serving = processes(cores, connections, own, servers)
    assert 1 <= generators <= min(16, connections)
    assert serving == (servers or serving if own else 0) and (serving >= 1) is own
    assert servers or not own or generators + serving <= max(2, cores)


def test_a_saturated_or_late_generator_is_reported():
    assert assess([0.2, 0.5], None) is None and assess([0.2], 1.0) is None and assess([], None) is None
    assert "saturated" in assess([0.1, 0.95], None) and "95%" in assess([0.1, 0.95], None)
    assert "late" in assess([0.1], 12.0) and "12.0 ms" in assess([0.1], 12.0)


counts = st.integers(0, 10**7)
seconds = st.sampled_from([0.0, 1e-6]) | st.floats(0.001, 600)


@st.composite
def records(draw) -> Record:
    """What may happen to one generator; the system may give a process a little more time than the clock shows."""
    errors = draw(st.dictionaries(st.sampled_from(["status 503", "no response in time", "never sent"]), counts))
    right, after, watched = draw(counts), draw(counts), draw(seconds)
    ran, waited = (draw(st.floats(0, 1.1)) * watched for _ in range(2))
    unsent = draw(st.integers(0, after + sum(errors.values())))
    return Record(
        right, after, 0, errors, unsent, draw(counts), draw(seconds), draw(counts), draw(counts), ran, waited, watched
    )


@given(st.lists(records(), min_size=1, max_size=4), st.floats(0.05, 600), st.none() | st.floats(0, 99), st.booleans())
def test_no_figure_contradicts_another_one(happened, duration, late_p99_ms, is_open):
    found = figures(happened, duration, late_p99_ms, is_open)
    assert found["requests"] == sum(record.right for record in happened)
    assert found["error_count"] == sum(found["errors"].values())
    # A rate is its count by its time.
    assert found["requests_per_s"] == (round(found["requests"] / found["seconds"], 1) if found["seconds"] else 0)
    assert found["seconds"] == pytest.approx(max(record.measured_s for record in happened), abs=1e-6)
    generator = found["generator"]
    assert 0 <= generator["busy_share"] <= 1 and generator["cpu_s"] >= 0
    due = found["requests"] + found["requests_after_the_end"] + found["error_count"]
    unsent = sum(record.unsent for record in happened)
    if is_open:
        assert found["offered_per_s"] == round(due / duration, 1)
        # Less was sent than was due: saturated, whoever was the limit.
        assert generator["saturated"] or unsent <= max(1, plan.UNSENT_SHARE * due)
    else:
        assert "offered_per_s" not in found
    if generator["saturated"]:
        assert generator["busy_share"] > plan.BUSY_SHARE or (is_open and unsent)
        assert "saturated" in generator["note"] or "could not be offered" in generator["note"]
    else:
        assert (generator["note"] is None) == (late_p99_ms is None or late_p99_ms <= plan.LATE_MS)
    if all(record.watched_s < SHORTEST_S for record in happened):
        assert generator["busy_share"] == 0, "a few milliseconds say nothing about saturation"


@settings(max_examples=examples(40))  # each walks through 100,000 counts, several times
@given(st.lists(st.lists(st.integers(1, 10**8), max_size=20), min_size=1, max_size=4))
def test_merged_histograms_are_the_histogram_of_all(parts):
    whole, encoded = HdrHistogram(1, LONGEST_US, DIGITS), []
    for part in parts:
        histogram = HdrHistogram(1, LONGEST_US, DIGITS)
        for value in part:
            histogram.record_value(value)
            whole.record_value(value)
        encoded.append(histogram.encode().decode())
    found = merged(encoded)
    assert found.get_total_count() == whole.get_total_count() == sum(map(len, parts))
    summary = times(found)
    assert summary == times(whole)
    values = sorted(value for part in parts for value in part)
    if values:
        assert summary["max"] * 1000 == pytest.approx(values[-1], rel=0.002, abs=1.1)
        assert summary["p50"] * 1000 == pytest.approx(values[(len(values) + 1) // 2 - 1], rel=0.002, abs=1.1)
