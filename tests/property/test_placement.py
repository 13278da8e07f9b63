"""Ranks are bounded, ordered by speed, and stable: the same facts twice give the same plan."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.kinds.base import Resources
from mesh.membership.member import Member
from mesh.messages import Capabilities, Heartbeat, KindInfo, NodeRecord
from mesh.scheduling import placement
from mesh.scheduling.placement import LAST, Memory


def made(number: int, facts: tuple[float, int, str, bool, int]) -> Member:
    mean_s, tasks, state, rented, cores = facts
    node = f"n{number}"
    record = NodeRecord(
        id=node, name=node, incarnation="1", slots=cores, labels={"market": "spot"} if rented else {},
        capabilities=Capabilities(cores=cores, kinds=(KindInfo("k", True),)),
    )  # fmt: skip
    return Member(record, state, Heartbeat(node=node, incarnation="1", seq=1, rates={"k": (mean_s, tasks)}))


FACTS = st.tuples(
    st.floats(1e-4, 1e4),
    st.integers(0, 20),
    st.sampled_from(["up", "up", "up", "suspect", "draining", "gone", "left"]),
    st.booleans(),
    st.integers(1, 128),
)
MEMBERS = st.lists(FACTS, min_size=1, max_size=12).map(
    lambda facts: [made(number, node_facts) for number, node_facts in enumerate(facts)]
)
RESOURCES = st.sampled_from([Resources(), Resources(cores="all"), Resources(gpu=1), Resources(cores=8)])


@given(MEMBERS, RESOURCES)
def test_ranks_are_bounded_and_suspect_or_draining_nodes_are_last(members, takes) -> None:
    plan = placement.ranks(members, {"k": takes}, Memory(), 0.0)[0].get("k", {})
    alive = {member.record.id: member for member in members if member.state in ("up", "suspect", "draining")}
    assert set(plan) == set(alive)
    for node, rank in plan.items():
        assert 0 <= rank <= LAST
        assert (rank == LAST) == (alive[node].state != "up")
    owned = [plan[node] for node, member in alive.items() if member.state == "up" and not member.record.labels]
    rented = [plan[node] for node, member in alive.items() if member.state == "up" and member.record.labels]
    assert not owned or not rented or max(owned) < min(rented)


@given(MEMBERS, RESOURCES)
def test_the_same_facts_give_the_same_plan(members, takes) -> None:
    first, memory = placement.ranks(members, {"k": takes}, Memory(), 0.0)
    again, _ = placement.ranks(members, {"k": takes}, memory, 1.0)
    assert first == again


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=8))
def test_a_faster_node_never_ranks_after_a_slower_one(means) -> None:
    members = [made(number, (mean_s, 9, "up", False, 4)) for number, mean_s in enumerate(means)]
    plan = placement.ranks(members, {"k": Resources()}, Memory(), 0.0)[0]["k"]
    order = [plan[f"n{number}"] for number in sorted(range(len(means)), key=lambda number: means[number])]
    assert order == sorted(order) and order[0] == 0


@given(st.lists(st.floats(0.95, 1.05), min_size=2, max_size=40))
def test_small_fluctuations_never_change_a_rank(swings) -> None:
    memory, seen = Memory(), []
    for number, swing in enumerate(swings):
        members = [made(0, (1.0, 9 + number, "up", False, 4)), made(1, (1.25 * swing, 9 + number, "up", False, 4))]
        plan, memory = placement.ranks(members, {"k": Resources()}, memory, float(number))
        seen.append(plan["k"]["n1"])
    assert len(set(seen)) == 1
