"""The deliveries of dead nodes are reclaimed once, after the kicks; living nodes keep theirs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.leader import reclaim
from mesh.leader.reclaim import DeadNode, Kick, Reclaim
from mesh.messages import Held

HELD = st.builds(
    lambda seq, count: Held(seq, count, f"$JS.ACK.{seq}.{count}", f"t-{seq}"),
    st.integers(1, 12),
    st.integers(1, 3),
)
DEAD = st.builds(
    DeadNode,
    node=st.sampled_from("abc"),
    incarnation=st.just("1"),
    held=st.lists(HELD, max_size=8).map(tuple),
    connections=st.frozensets(st.tuples(st.sampled_from(["S", "T"]), st.integers(1, 4)), max_size=2),
)


@given(
    st.lists(st.tuples(st.lists(DEAD, max_size=3), st.floats(0, 3)), max_size=12),
    st.dictionaries(st.integers(1, 12), st.integers(1, 3)),
)
def test_reclaims_are_exactly_once_after_kicks_and_never_from_a_later_holder(rounds, elsewhere) -> None:
    memory, now, returned = reclaim.Memory(), 0.0, []
    for dead, passes_s in rounds:
        now += passes_s
        actions, memory = reclaim.plan_reclaim(dead, elsewhere, memory, now)
        kinds = [isinstance(action, Kick) for action in actions]
        assert kinds == sorted(kinds, reverse=True), "kicks come first"
        returned += [(action.stream_seq, action.delivered) for action in actions if isinstance(action, Reclaim)]
        known = {(held.stream_seq, held.delivered) for node in dead for held in node.held}
        due = {key for key in known if elsewhere.get(key[0], 0) < key[1]}
        assert due <= set(returned), "nothing that is due is left"
    assert len(returned) == len(set(returned)), "exactly once"
    assert all(elsewhere.get(seq, 0) < count for seq, count in returned)


@given(st.lists(DEAD, max_size=4))
def test_nothing_to_do_the_second_time(dead) -> None:
    _, memory = reclaim.plan_reclaim(dead, {}, reclaim.Memory(), 10.0)
    again, after = reclaim.plan_reclaim(dead, {}, memory, 10.5)
    assert again == [] and after == memory
