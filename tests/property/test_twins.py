"""Two processes with one node id: exactly one goes on, both find the same one, and a restart is no twin."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mesh import decoding
from mesh.coordination import IdentityClaim
from mesh.decoding import Unreadable
from mesh.membership import twins
from mesh.membership.member import Member
from mesh.messages import Heartbeat, NodeRecord, encode

tokens = st.text("abcdefghij234567", min_size=1, max_size=9)
claims = st.builds(
    IdentityClaim, node=st.just("n1"), incarnation=tokens, session=tokens, connections=st.integers(1, 4),
    ticket=st.integers(0, 9), name=tokens, addresses=st.lists(tokens, max_size=2).map(tuple), pid=st.integers(0, 9),
)  # fmt: skip


@given(claims, claims)
def test_of_two_processes_exactly_one_goes_on(one, other) -> None:
    if one.session != other.session:
        assert twins.goes_on(one, other) != twins.goes_on(other, one)


@given(st.lists(claims, min_size=1, max_size=5, unique_by=lambda claim: claim.session))
def test_of_any_number_exactly_one_goes_on(found) -> None:
    left = [claim for claim in found if all(twins.goes_on(claim, other) for other in found if other is not claim)]
    assert len(left) == 1


@given(claims, claims, st.booleans(), st.booleans(), st.integers(10, 19), st.integers(10, 19))
def test_both_never_stop_however_old_what_each_has_heard_is(one, other, new_one, new_other, first, second) -> None:
    """A process gets its number while the claims are on their way: each side may judge by the claim before it."""
    one, other = replace(one, ticket=0), replace(other, ticket=0)
    if one.incarnation == other.incarnation:
        return
    later_one, later_other = replace(one, ticket=first), replace(other, ticket=second)
    heard_of_other, heard_of_one = (other if new_one else later_other), (one if new_other else later_one)
    # Each judges with its own newest claim that is at least as new as what the other side heard of it.
    for own_one in (later_one,) if heard_of_one is later_one else (one, later_one):
        for own_other in (later_other,) if heard_of_other is later_other else (other, later_other):
            stops_one = not twins.goes_on(own_one, heard_of_other)
            stops_other = not twins.goes_on(own_other, heard_of_one)
            if first != second:
                assert not (stops_one and stops_other)


@given(claims, claims)
def test_the_one_that_the_mesh_has_goes_on_before_one_that_starts(running, starting) -> None:
    assert twins.goes_on(replace(running, ticket=5), replace(starting, ticket=0))
    assert twins.goes_on(replace(running, ticket=5), replace(starting, ticket=6))


def test_of_two_copies_of_one_process_the_one_that_kept_its_connection_goes_on() -> None:
    kept = IdentityClaim(node="n1", incarnation="i1", session="s9", connections=1, ticket=7)
    assert twins.goes_on(kept, replace(kept, session="s1", connections=2))


@given(claims, tokens, st.floats(0, 100))
def test_a_process_knows_its_own_claims_also_after_it_moved(claim, former, ago_s) -> None:
    assert twins.is_own(claim, claim.session, former, ago_s)
    if claim.session != former:
        assert twins.is_own(claim, former, claim.session, ago_s) == (ago_s < twins.UNDER_WAY_S)
        assert not twins.is_own(claim, former, "", ago_s)


def test_people_are_told_which_machines_and_what_to_do() -> None:
    mine = IdentityClaim(node="n1", incarnation="i1", session="s1", name="copy", boot_id="b", machine_id="m")
    other = replace(mine, name="office", addresses=("10.0.0.4",), pid=812, boot_id="c")
    message = twins.refusal(mine, other, "/data")
    assert (
        "office (10.0.0.4, process 812)" in message
        and "its machine was cloned" in message
        and "empty --data" in message
    )
    assert "copied on the same machine" in twins.refusal(mine, replace(other, boot_id="b"), "/data")
    assert "copied to another machine" in twins.refusal(mine, replace(other, machine_id="x"), "/data")
    heartbeat = Heartbeat(node="n1", incarnation="i1", seq=1, twin="copy (10.0.0.9)")
    record = NodeRecord(id="n1", name="office", incarnation="i1")
    (alarm,) = twins.alarms_of([Member(record, heartbeat=heartbeat), Member(record)]).values()
    assert "office goes on" in alarm and "copy (10.0.0.9)" in alarm
    assert twins.where(replace(mine, name="a\nb\x1b[31m")) == "ab[31m"


@given(st.binary(max_size=60))
def test_garbage_is_no_claim(data) -> None:
    assert isinstance(decoding.identity_claim(data), IdentityClaim | Unreadable)
    assert isinstance(decoding.identity_claim(encode({"node": "a b", "incarnation": "i", "session": "s"})), Unreadable)
