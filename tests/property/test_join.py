"""Time in which a node could not listen does not count towards its search for a mesh."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.discovery.founding import Memory
from mesh.discovery.join import DEAF_S, LISTEN_S, listened

WAIT_S = 1.0


@given(st.lists(st.floats(0.0, 3.0), max_size=40))
def test_a_node_that_ends_its_search_has_listened_that_long(steps_s) -> None:
    memory, now, heard_s = Memory(started_at=0.0), 0.0, 0.0
    for more_s in steps_s:
        took_s = LISTEN_S + more_s
        now += took_s
        memory = listened(memory, took_s, LISTEN_S, now, WAIT_S)
        if more_s > WAIT_S:
            heard_s = 0.0
        else:
            heard_s += LISTEN_S + (0.0 if more_s > DEAF_S else more_s)
        assert now - memory.started_at <= heard_s + 1e-9


def test_a_step_of_the_expected_length_changes_nothing() -> None:
    memory = Memory(started_at=5.0)
    assert listened(memory, LISTEN_S + DEAF_S / 2, LISTEN_S, 9.0, WAIT_S) is memory
