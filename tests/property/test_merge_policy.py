"""Two meshes that detect each other: both reach the same decision, and nothing in use is merged automatically."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mesh.merge.policy import YOUNG_S, MeshSummary, alarm, explain, judge, source

SUMMARIES = st.builds(
    MeshSummary,
    id=st.sampled_from(["ma", "mb", "mc"]),
    name=st.sampled_from(["queztl", "lab"]),
    nodes=st.integers(0, 5),
    age_s=st.sampled_from([0.0, 1.0, YOUNG_S - 1, YOUNG_S, 1e6]),
    unfinished=st.sampled_from([0, 0, 1, 1000]),
    stored=st.sampled_from([0, 0, 7]),
    key=st.sampled_from(["", "", "k1", "k2"]),
    lease=st.tuples(st.sampled_from(["n1", "n2"]), st.sampled_from(["i1", "i2", "i3"])),
)


@given(SUMMARIES, SUMMARIES)
def test_both_sides_come_to_the_same_answer(one: MeshSummary, other: MeshSummary) -> None:
    assert judge(one, other) == judge(other, one)
    assert source(one, other) == source(other, one)


@given(SUMMARIES, SUMMARIES)
def test_unasked_only_what_can_hurt_nobody(one: MeshSummary, other: MeshSummary) -> None:
    verdict = judge(one, other)
    if verdict.action != "merge":
        return
    assert one.name == other.name and one.key == other.key
    merged = source(one, other)
    assert merged.id == verdict.source
    assert one.id == other.id or one.key or (merged.is_empty and merged.age_s < YOUNG_S)


@given(SUMMARIES, SUMMARIES)
def test_strangers_and_other_keys_are_left_alone(one: MeshSummary, other: MeshSummary) -> None:
    if one.name != other.name or one.key != other.key:
        assert judge(one, other).action == "nothing"


@given(SUMMARIES)
def test_a_mesh_does_not_meet_itself(summary: MeshSummary) -> None:
    assert judge(summary, summary).action == "nothing"


@given(SUMMARIES, SUMMARIES)
def test_whoever_is_told_is_told_what_decides(one: MeshSummary, other: MeshSummary) -> None:
    verdict = judge(one, other)
    sentence = alarm(one, other, verdict)
    assert bool(sentence) is (verdict.action == "alarm")
    if sentence:
        assert "queztl bus merge" in sentence and one.id in sentence and other.id in sentence
        merged = source(one, other)
        assert merged.id in explain(merged, one if merged is other else other)[0]


def test_work_stays_where_it_is_and_the_empty_one_moves() -> None:
    used = MeshSummary("ma", "queztl", nodes=1, age_s=30.0, unfinished=5)
    fresh = MeshSummary("mb", "queztl", nodes=9, age_s=30.0)
    assert judge(used, fresh).source == "mb", "more nodes do not count against work"
    assert judge(used, MeshSummary("mb", "queztl", nodes=9, age_s=500.0)).action == "alarm"
