"""Subjects: the streams accept every subject that a function builds, and the parsers read it back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh import subjects

TOKENS = st.text("abcXYZ019_-", min_size=1, max_size=20)


def matches(pattern: str, subject: str) -> bool:
    """NATS wildcards: `*` is one token, `>` the rest."""
    wanted, have = pattern.split("."), subject.split(".")
    for place, token in enumerate(wanted):
        if token == ">":
            return len(have) > place
        if place >= len(have) or token not in ("*", have[place]):
            return False
    return len(wanted) == len(have)


@given(TOKENS, st.integers(0, 1 << 63))
def test_task_ids_are_split_into_their_parts(submitter, number) -> None:
    task = subjects.task_id(submitter, number)
    assert subjects.split_task_id(task) == (submitter, str(number))


NO_TASK_IDS = ["", "-", "c1", "c1-", "-1", "c1-x", "c.1-1", "c1-1.5", "c 1-1", "c1-²", "c*-1", "x" * 65 + "-1"]


@pytest.mark.parametrize("text", NO_TASK_IDS)
def test_an_invalid_task_id_is_refused(text) -> None:
    with pytest.raises(ValueError):
        subjects.split_task_id(text)


@given(TOKENS, TOKENS, st.sampled_from(subjects.URGENCIES), TOKENS, st.integers(0, 99))
def test_the_streams_accept_what_is_published(kind, pool, urgency, submitter, number) -> None:
    task = subjects.task_id(submitter, number)
    lane = subjects.lane_subject(kind, pool, urgency, task)
    assert matches(subjects.WORK_SUBJECTS[0], subjects.ingress(kind))
    assert matches(subjects.WORK_SUBJECTS[1], lane) and not matches(subjects.WORK_SUBJECTS[0], lane)
    assert matches(subjects.lane_filter(kind, pool, urgency), lane)
    assert matches(subjects.any_lane_of(task), lane)
    assert matches(subjects.LATER_SUBJECTS[0], subjects.later_at(task))
    assert matches(subjects.LATER_SUBJECTS[1], subjects.later_due(task))
    assert matches(subjects.any_later_of(task), subjects.later_at(task))
    assert matches(subjects.TASKS_SUBJECTS[0], subjects.state(task))
    assert matches(subjects.TASKS_SUBJECTS[1], subjects.end(task))
    assert matches(subjects.EVENTS_SUBJECTS[0], subjects.event("join"))
    assert matches(subjects.DEAD_SUBJECTS[0], subjects.dead(kind, task))
    assert matches(subjects.METRICS_SUBJECTS[0], subjects.metric(kind, ""))
    assert matches(subjects.ALL_WAKES, subjects.wake(kind, pool, urgency))
    assert matches(subjects.ALL_CANCELS, subjects.cancel(task))


@given(TOKENS, st.integers(0, 99))
def test_what_tasks_stores_is_republished_to_its_submitter(submitter, number) -> None:
    task = subjects.task_id(submitter, number)
    source, target = subjects.TASKS_REPUBLISH
    for subject in (subjects.state(task), subjects.end(task)):
        assert matches(source, subject)
        republished = target
        for place, token in enumerate(subject.split(".")[1:], 1):
            republished = republished.replace(f"{{{{wildcard({place})}}}}", token)
        assert matches(subjects.all_task_updates(submitter), republished)
        assert matches(subjects.task_updates(submitter, str(number)), republished)


@given(TOKENS, TOKENS, st.sampled_from(subjects.URGENCIES))
def test_durable_names_are_split_into_their_parts(kind, pool, urgency) -> None:
    assert subjects.split_durable(subjects.lane_durable(kind, pool, urgency)) == (kind, pool, urgency)
    assert subjects.split_durable(subjects.INGRESS_DURABLE) is None
    assert subjects.split_durable(f"{kind}~{pool}~soon") is None


@given(st.text(max_size=70))
def test_a_token_never_breaks_a_subject(text) -> None:
    if subjects.is_token(text):
        assert text and text.isascii() and not set(text) & set(".*> \t\r\n~")
