"""An order to merge counts only where both meshes hold matching records and the other one answers as itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.coordination import MergeAcceptance, MergeOrder
from mesh.merge.confirmation import Confirmation, Target, judge
from mesh.merge.detector import UNDO_AFTER_S, must_withdraw

tokens = st.sampled_from(["o1", "o2", "o3", ""])
meshes = st.sampled_from(["ma", "mb", "mc"])
ORDER = MergeOrder(into="mb", urls=("nats://b:1",), token="o2")
ACCEPTED = MergeAcceptance(source="ma", token="o2")


def state(target: Target | None, order: MergeOrder = ORDER) -> str:
    return judge(order, "ma", "queztl", target).state


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (None, "silent"),
        (Target("mb", "queztl", ACCEPTED, None), "confirmed"),
        (Target("mx", "queztl", ACCEPTED, None), "refused"),
        (Target("mb", "other", ACCEPTED, None), "refused"),
        (Target("mb", "queztl", None, None), "refused"),
        (Target("mb", "queztl", MergeAcceptance(source="mz", token="o2"), None), "refused"),
        (Target("mb", "queztl", MergeAcceptance(source="ma", token="o9"), None), "refused"),
        (Target("mb", "queztl", ACCEPTED, MergeOrder(into="mc", urls=("nats://c:1",), token="o1")), "refused"),
        (Target("mb", "queztl", ACCEPTED, ORDER), "refused"),
    ],
)
def test_an_order_is_followed_only_where_the_other_mesh_says_the_same(target, expected) -> None:
    assert state(target) == expected


def test_an_order_without_a_token_and_acceptance_is_nobodys() -> None:
    forged = MergeOrder(into="mb", urls=("nats://b:1",))
    assert state(Target("mb", "queztl", MergeAcceptance(source="ma", token=""), None), forged) == "refused"


@given(tokens, tokens)
def test_of_two_meshes_ordered_into_each_other_one_goes(one, other) -> None:
    if one == other or not one or not other:
        return
    a = MergeOrder(into="mb", urls=("nats://b:1",), token=one)
    b = MergeOrder(into="ma", urls=("nats://a:1",), token=other)
    goes_a = judge(a, "ma", "queztl", Target("mb", "queztl", MergeAcceptance(source="ma", token=one), b)).state
    goes_b = judge(b, "mb", "queztl", Target("ma", "queztl", MergeAcceptance(source="mb", token=other), a)).state
    assert sorted([goes_a, goes_b]) == ["confirmed", "refused"]


@given(meshes, st.sampled_from(["queztl", "lab"]), meshes, tokens, st.sampled_from(["drain", "moved"]), meshes, tokens)
def test_what_is_confirmed_is_accepted_by_the_mesh_it_names(mesh, name, source, token, phase, into, their) -> None:
    theirs = MergeOrder(into=into, urls=("nats://c:1",), token=their) if their else None
    acceptance = MergeAcceptance(source=source, token=token, phase=phase) if token else None
    found = judge(ORDER, "ma", "queztl", Target(mesh, name, acceptance, theirs))
    if found.state == "confirmed":
        assert (mesh, name, source, token) == ("mb", "queztl", "ma", "o2")
        assert theirs is None or theirs.into == "ma"
    assert not (found.moved and (found.state != "confirmed" or phase != "moved"))


@given(st.floats(0, 1e6))
def test_an_order_that_is_refused_or_whose_target_is_gone_is_withdrawn(silent_s) -> None:
    assert must_withdraw(Confirmation("refused"), silent_s)
    assert must_withdraw(Confirmation("silent"), silent_s) == (silent_s > UNDO_AFTER_S)
    assert not must_withdraw(Confirmation("confirmed"), silent_s)
