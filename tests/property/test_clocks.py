"""No decision depends on what a machine's clock shows: whatever the clocks of submitter, node and servers are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.bus.replies import unix_seconds
from mesh.bus.reserved import at_schedule
from mesh.bus.stream_clock import Reading, has_expired
from mesh.merge.carried import EXPIRED_S, left_s, schedule_shifted

TRUE_NOW = 1_795_982_400.0
skews = st.floats(-1e7, 1e7)
#: A monotonic clock counts from any moment.
boots = st.floats(0, 1e7)
spans = st.floats(0, 1e5)
latencies = st.floats(0, 10)
NEAR_S = 1e-3


@given(skews, boots, latencies, latencies, spans, spans, st.floats(1, 1e5))
def test_a_task_expires_by_how_long_it_waited(server, boot, ask_s, answer_s, since_s, waited_s, expires_s) -> None:
    """The server's clock is off by any amount, the reading is `since_s` old, the request took any time."""
    stored_at = TRUE_NOW - waited_s + server
    read_at = TRUE_NOW - since_s
    asked, answered = boot - ask_s - since_s, boot + answer_s - since_s
    reading = Reading(read_at + server, asked, answered)
    decided = has_expired(expires_s, stored_at, reading.earliest(boot))
    assert reading.earliest(boot) <= TRUE_NOW + server + NEAR_S and TRUE_NOW + server <= reading.latest(boot) + NEAR_S
    if decided:  # never early
        assert waited_s > expires_s - NEAR_S
    if waited_s > expires_s + answer_s + NEAR_S:  # late by no more than the answer took
        assert decided


@given(skews, boots, latencies, latencies, spans)
def test_a_delayed_task_is_due_after_its_delay_whatever_the_server_shows(
    server, boot, ask_s, answer_s, delay_s
) -> None:
    reading = Reading(TRUE_NOW + server, boot - ask_s, boot + answer_s)
    due_at = reading.latest(boot + answer_s) + delay_s  # by the server's clock
    waits_s = due_at - (TRUE_NOW + answer_s + server)
    assert delay_s - NEAR_S <= waits_s <= delay_s + ask_s + answer_s + NEAR_S


@given(spans, spans)
def test_what_never_expires_never_expires(waited_s, server) -> None:
    assert not has_expired(0.0, TRUE_NOW, TRUE_NOW + waited_s + server)
    assert not has_expired(1.0, TRUE_NOW + server + 1.0, TRUE_NOW)  # another server leads, and its clock is behind


@given(skews, skews, spans)
def test_a_moved_schedule_fires_after_the_seconds_it_had_left(source, target, left) -> None:
    moved = schedule_shifted(at_schedule(TRUE_NOW + source + left), (TRUE_NOW + target) - (TRUE_NOW + source))
    assert unix_seconds(moved.removeprefix("@at ")) - (TRUE_NOW + target) == pytest.approx(left, abs=NEAR_S)


def test_a_schedule_that_is_no_moment_is_moved_as_it_is() -> None:
    assert schedule_shifted("@every 5s", 3600.0) == "@every 5s"


@given(st.floats(1, 1e5), st.floats(-1e5, 1e6))
def test_a_moved_task_keeps_what_is_left_of_its_time(expires_s, waited_s) -> None:
    left = left_s(expires_s, waited_s)
    assert left == expires_s if waited_s <= 0 else left == max(EXPIRED_S, expires_s - waited_s)
    assert left > 0  # 0 would mean "never"
