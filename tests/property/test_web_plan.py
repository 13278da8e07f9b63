"""The arithmetic of a load test: the schedule of requests, and when the load generator is the limit."""

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

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
