"""Copies that do not become whole by themselves: who is restarted, what is made anew, and when neither may be done."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mesh.cluster import upkeep
from mesh.cluster.replicas import Replicas
from mesh.cluster.steps import MoveStreams, Restart, Scale, Settle, Wait
from mesh.cluster.topology import Candidate, Rules, Server, Stream, View, plan
from mesh.cluster.upkeep import State, differing

ALL = frozenset("abc")
SERVERS = tuple(Server(name, name, frozenset({f"10.0.0.{number}"})) for number, name in enumerate("abc"))
WORK, MESH = Stream("WORK", 3, "a", ALL, ALL), Stream("KV_mesh", 3, "a", ALL, ALL)
SPARE = Candidate("d", frozenset({"10.0.0.9"}), 1000.0)
WHOLE, LESS = State(1, 12, 12), State(9, 12, 4)


def step(*servers: Server, streams: tuple[Stream, ...] = (WORK, MESH), spare: bool = False) -> object:
    members = (*servers, *(server for server in SERVERS if server.name not in {found.name for found in servers}))
    return plan(View("a", members, (SPARE,) if spare else (), streams, 3), Rules())


def test_waiting_for_a_late_server_has_a_limit() -> None:
    late = replace(SERVERS[2], current=False, late_s=10.0)
    assert step(late) == Wait("c catches up")
    late = replace(late, late_s=upkeep.RESTART_LATE_S)
    assert step(late) == Restart("c", "c")
    assert step(replace(late, restarted_s=5.0)) == Wait("c catches up")
    beside = replace(SERVERS[1], current=False, late_s=5.0)
    assert isinstance(step(late, beside), Wait), "with another one late as well, a restart would cost the majority"


def test_a_server_that_stays_late_is_replaced_where_a_machine_is_free() -> None:
    late = replace(SERVERS[2], current=False, late_s=upkeep.REPLACE_LATE_S, restarted_s=100.0)
    assert step(late) == Wait("c catches up"), "nobody could take its place"
    assert repr(step(late, spare=True)) == "Promote(node='d')"


def test_a_copy_that_stays_behind_has_its_server_restarted() -> None:
    behind = replace(WORK, current=frozenset("ab"), behind_s=upkeep.RESTART_LATE_S)
    assert step(streams=(behind, MESH)) == Restart("c", "c")
    assert step(replace(SERVERS[2], restarted_s=1.0), streams=(behind, MESH)) == Wait("WORK: a copy catches up")
    both = replace(MESH, current=frozenset("ac"), behind_s=1.0)
    assert isinstance(step(streams=(behind, both)), Wait), "another server is behind with another stream"


def test_a_differing_copy_is_made_anew_from_one_that_is_like_most() -> None:
    odd = replace(MESH, differing=frozenset("c"), differs_s=upkeep.DIFFER_S)
    assert step(streams=(WORK, odd)) == Scale(("KV_mesh",), 1)
    assert step(streams=(WORK, replace(odd, leader="c"))) == MoveStreams(("KV_mesh",), "a")
    assert step(streams=(WORK, replace(odd, differs_s=1.0))) == Wait(), "acknowledgements are on their way"
    young = step(streams=(WORK, replace(odd, differs_s=upkeep.REPORT_DIFFERENCE_S)))
    assert young == Wait("KV_mesh: a copy differs from the others and is made anew")
    assert isinstance(step(streams=(replace(WORK, current=frozenset("ab")), odd)), Scale)
    assert isinstance(step(streams=(WORK, replace(odd, current=frozenset("ac")))), Wait), "a copy is behind: not now"
    scaled = replace(MESH, replicas=1, members=frozenset("a"), current=frozenset("a"), leftovers=frozenset("bc"))
    assert step(streams=(WORK, scaled)) == Wait("KV_mesh: old copies are removed")
    assert step(streams=(WORK, replace(scaled, leftovers=frozenset()))) == Scale(("KV_mesh",), 3)


@given(
    st.dictionaries(st.sampled_from("abc"), st.builds(State, st.integers(1, 3), st.integers(3, 4), st.integers(0, 3)))
)
def test_copies_are_compared_at_one_last_sequence_only_and_most_are_right(states: dict[str, State]) -> None:
    odd = differing("a", states)
    assert odd < states.keys() or not states
    if odd:
        assert len({state.last for state in states.values()}) == 1
        assert len({states[server] for server in states.keys() - odd}) == 1
        assert len(states) < 3 or len(odd) == 1 or "a" not in odd


def test_copies_differ_for_as_long_as_each_look_that_can_compare_them_says_so() -> None:
    now = 0.0
    copies = Replicas(lambda: now)
    states = {"KV_mesh": {"a": WHOLE, "b": WHOLE, "c": LESS}}
    assert copies.compare([MESH], states)[0].differs_s == 0.0
    now = 40.0
    (found,) = copies.compare([MESH], states)
    assert (found.differing, found.differs_s) == (frozenset("c"), 40.0)
    assert copies.compare([MESH], {"KV_mesh": {"a": WHOLE, "b": WHOLE}})[0].differing == frozenset(), "c did not answer"
    copies.scaled_down(["KV_mesh"])
    copies.compare([MESH], states)
    now = 80.0
    assert copies.compare([MESH], states)[0].differs_s == 10.0, "a repair that did not help is repeated later"
    copies.compare([MESH], {"KV_mesh": dict.fromkeys("abc", WHOLE)})
    assert copies.compare([MESH], states)[0].differs_s == 0.0


def test_each_change_of_members_is_followed_by_an_entry_once_the_copies_are_whole() -> None:
    replicas = Replicas()
    alone = Stream("WORK", 1, "a", frozenset("a"), frozenset("a"))

    def judged(stream: Stream) -> Stream:
        (found,) = replicas.judge([stream], {"WORK": dict.fromkeys(stream.current, 7)})
        return found

    assert judged(alone).settled, "the log of a single copy is not asked for votes"
    assert not judged(WORK).settled
    assert step(streams=(judged(WORK), MESH)) == Settle(("WORK",))
    growing = judged(replace(WORK, current=frozenset("ab")))
    assert step(streams=(growing, MESH)) == Wait(), "first the copies"
    replicas.settled(["WORK"])
    assert judged(WORK).settled
    assert step(streams=(judged(WORK), MESH)) == Wait()
    assert not judged(replace(WORK, members=frozenset("abd"), current=frozenset("abd"))).settled, "d has replaced c"
    assert judged(WORK).settled is True
    assert not Replicas().judge([WORK], {"WORK": dict.fromkeys("abc", 7)})[0].settled, "a new leader settles it again"
