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
def test_of_two_processes_exactly_one_goes_on(original, copy) -> None:
    if original.session != copy.session:
        assert twins.goes_on(original, copy) != twins.goes_on(copy, original)


@given(st.lists(claims, min_size=1, max_size=5, unique_by=lambda claim: claim.session))
def test_of_any_number_exactly_one_goes_on(found) -> None:
    left = [claim for claim in found if all(twins.goes_on(claim, other) for other in found if other is not claim)]
    assert len(left) == 1


@given(claims, claims, st.booleans(), st.booleans(), st.integers(10, 19), st.integers(10, 19))
def test_both_never_stop_however_old_what_each_has_heard_is(
    original, copy, copy_is_early, original_is_early, original_ticket, copy_ticket
) -> None:
    """A process gets its number while the claims are on their way: each side may judge by the claim before it."""
    original, copy = replace(original, ticket=0), replace(copy, ticket=0)
    if original.incarnation == copy.incarnation:
        return
    later_original, later_copy = replace(original, ticket=original_ticket), replace(copy, ticket=copy_ticket)
    heard_of_copy = copy if copy_is_early else later_copy
    heard_of_original = original if original_is_early else later_original
    # Each judges with its own newest claim that is at least as new as what the other side heard of it.
    for own_original in (later_original,) if heard_of_original is later_original else (original, later_original):
        for own_copy in (later_copy,) if heard_of_copy is later_copy else (copy, later_copy):
            original_stops = not twins.goes_on(own_original, heard_of_copy)
            copy_stops = not twins.goes_on(own_copy, heard_of_original)
            if original_ticket != copy_ticket:
                assert not (original_stops and copy_stops)


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
    assert twins.machine_of(replace(mine, name="a\nb\x1b[31m")) == "ab[31m"


@given(st.binary(max_size=60))
def test_garbage_is_no_claim(data) -> None:
    assert isinstance(decoding.identity_claim(data), IdentityClaim | Unreadable)
    assert isinstance(decoding.identity_claim(encode({"node": "a b", "incarnation": "i", "session": "s"})), Unreadable)
