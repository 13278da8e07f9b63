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
def test_both_sides_come_to_the_same_answer(summary: MeshSummary, other: MeshSummary) -> None:
    assert judge(summary, other) == judge(other, summary)
    assert source(summary, other) == source(other, summary)


@given(SUMMARIES, SUMMARIES)
def test_only_harmless_merges_happen_automatically(summary: MeshSummary, other: MeshSummary) -> None:
    verdict = judge(summary, other)
    if verdict.action != "merge":
        return
    assert summary.name == other.name and summary.key == other.key
    merged = source(summary, other)
    assert merged.id == verdict.source
    assert summary.id == other.id or summary.key or (merged.is_empty and merged.age_s < YOUNG_S)


@given(SUMMARIES, SUMMARIES)
def test_meshes_of_another_name_or_key_are_left_alone(summary: MeshSummary, other: MeshSummary) -> None:
    if summary.name != other.name or summary.key != other.key:
        assert judge(summary, other).action == "nothing"


@given(SUMMARIES)
def test_a_mesh_does_not_merge_with_itself(summary: MeshSummary) -> None:
    assert judge(summary, summary).action == "nothing"


@given(SUMMARIES, SUMMARIES)
def test_an_alarm_names_both_meshes_and_the_source(summary: MeshSummary, other: MeshSummary) -> None:
    verdict = judge(summary, other)
    sentence = alarm(summary, other, verdict)
    assert bool(sentence) is (verdict.action == "alarm")
    if sentence:
        assert "queztl bus merge" in sentence and summary.id in sentence and other.id in sentence
        merged = source(summary, other)
        assert merged.id in explain(merged, summary if merged is other else other)[0]


def test_work_stays_where_it_is_and_the_empty_mesh_moves() -> None:
    used = MeshSummary("ma", "queztl", nodes=1, age_s=30.0, unfinished=5)
    fresh = MeshSummary("mb", "queztl", nodes=9, age_s=30.0)
    assert judge(used, fresh).source == "mb", "more nodes do not count against work"
    assert judge(used, MeshSummary("mb", "queztl", nodes=9, age_s=500.0)).action == "alarm"
