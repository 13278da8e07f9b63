"""The table of transitions: every step it lists is taken, every other one refused, and final states stay final."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.task_states import FINAL, TRANSITIONS, IllegalTransition, State, diagram, step

STATES = st.sampled_from(list(State))


@given(STATES, STATES)
def test_a_step_is_legal_exactly_when_the_table_lists_it(before, after) -> None:
    if after in TRANSITIONS[before]:
        assert step(before, after) is after
    else:
        with pytest.raises(IllegalTransition) as refused:
            step(before, after)
        assert (refused.value.before, refused.value.after) == (before, after)
        assert str(before) in str(refused.value) and str(after) in str(refused.value)


@given(st.lists(STATES, max_size=20))
def test_no_walk_leaves_a_final_state(requested) -> None:
    now, ended = State.QUEUED, None
    for requested_state in requested:
        try:
            now = step(now, requested_state)
        except IllegalTransition:
            continue
        assert ended is None
        ended = now if now in FINAL else None


def test_the_four_ends_are_final_and_reachable() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {State.DONE, State.FAILED, State.CANCELLED, State.EXPIRED} == FINAL
    assert set(TRANSITIONS[State.RUNNING]) >= FINAL
    assert State.DONE not in TRANSITIONS[State.QUEUED]


def test_the_diagram_shows_the_table() -> None:
    arrows = {
        tuple(line.strip().split(" --> "))
        for line in diagram().splitlines()[1:]
        if not line.strip().startswith("[*]") and not line.endswith("[*]")
    }
    assert arrows == {(str(state), str(following)) for state, nexts in TRANSITIONS.items() for following in nexts}
