"""Alarms: raised from four fifths of a limit on, never below it, and reported once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh import subjects
from mesh.bus.streams import StreamUsage
from mesh.config import LAN
from mesh.leader import alarms
from mesh.limits import ALARM_SHARE

names = st.sampled_from([subjects.WORK, subjects.LATER, subjects.TASKS, subjects.DEAD, subjects.EVENTS, "KV_claims"])
usages = st.lists(
    st.builds(StreamUsage, names, st.integers(0, 1 << 40), st.integers(-1, 1 << 40)),
    unique_by=lambda usage: usage.stream,
)


@given(st.integers(0, 1000), usages)
def test_every_stream_over_its_limit_and_no_other_raises_an_alarm(lanes, usages):
    limits = {usage.stream: usage.max_bytes for usage in usages} | {subjects.LATER: LAN.later_max_bytes}
    full = {
        usage.stream
        for usage in usages
        if limits[usage.stream] > 0 and usage.size_bytes >= ALARM_SHARE * limits[usage.stream]
    }
    expected = full - {subjects.EVENTS} | ({"lanes"} if lanes >= ALARM_SHARE * LAN.limits.lanes else set())
    found = alarms.evaluate({"lanes": lanes}, usages, LAN)
    assert found.keys() == expected
    assert all(sentence.endswith(".") for sentence in found.values())
    assert alarms.new_alarms({}, found) == list(found) and alarms.new_alarms(found, found) == []


def test_the_sentence_says_how_full_the_store_is_and_what_follows():
    half = StreamUsage(subjects.DEAD, 90 << 20, 100 << 20)
    (sentence,) = alarms.evaluate({}, [half], LAN).values()
    assert sentence == (
        "The store of dead letters is 90% full (90 of 100 MiB): when it is full, the oldest are removed early: "
        "replay or remove them."
    )
