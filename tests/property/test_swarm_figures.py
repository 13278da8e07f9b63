"""A swarm's figures: reports merge in any order, every observer counts deaths, verdicts follow the targets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.cases.swarm import split_nodes
from bench.swarm import figures
from bench.swarm.figures import Report

NODES = st.sampled_from([f"n{number}" for number in range(6)])
LOGS = st.lists(
    st.tuples(
        st.dictionaries(NODES, st.floats(10, 20), max_size=6), st.dictionaries(NODES, st.integers(1, 3), max_size=6)
    ),
    max_size=8,
)


@given(LOGS, st.integers(0, 8), st.randoms())
def test_reports_of_several_processes_are_one_report(logs, cut, random) -> None:
    whole = Report.of(logs, {"a": 1})
    parts = [Report.of(logs[:cut], {}), Report.of(logs[cut:], {"a": 1})]
    random.shuffle(parts)
    assert figures.merge(parts) == whole
    assert Report.from_json(whole.as_json()) == whole
    assert whole.observers == len(logs)


@given(LOGS, st.sets(NODES))
def test_every_missed_death_and_every_false_one_counts(logs, dead) -> None:
    found = figures.deaths(Report.of(logs, {}), dead, 10.0)
    assert found["unnoticed"] == sum(node not in gone for gone, _ in logs for node in dead)
    assert found["false_deaths"] == sorted({node for gone, _ in logs for node in gone} - dead)
    times = [at for gone, _ in logs for node, at in gone.items() if node in dead]
    assert found["all_noticed_everywhere_s"] == (round(max(times) - 10.0, 3) if times else 0.0)
    assert found["first_s"] <= found["all_noticed_everywhere_s"]


@given(st.integers(10, 3000), st.integers(1, 16))
def test_all_nodes_are_split_over_the_processes(nodes, processes) -> None:
    counts = split_nodes(nodes, processes)
    assert sum(counts.values()) == nodes
    assert counts["killed"] == counts["frozen"] == max(1, nodes // 10)
    rest = [count for name, count in counts.items() if name.startswith("swarm")]
    assert len(rest) == processes and max(rest) - min(rest) <= 1


@given(st.dictionaries(NODES, st.floats(0, 100)), st.floats(0.1, 10))
def test_shares_are_of_a_core_and_of_living_processes_only(before, window_s) -> None:
    after = {name: cpu_s + window_s / 2 for name, cpu_s in before.items() if name != "n0"}
    found = figures.shares(before, after, window_s)
    assert found.keys() == after.keys()
    assert all(abs(share - 50.0) < 0.02 for share in found.values())


def document(**changes) -> dict:
    """A document in which every target holds, except for `changes`: `killed__unnoticed`, `leader` or another key."""
    death = {
        "false_deaths": [], "unnoticed": 0, "leader_missed": 0, "all_noticed_everywhere_s": 2.0, "leader_s": 1.0,
    }  # fmt: skip
    made = {
        "cpu_core_percent": {"leader": {"median": changes.pop("leader", 4.0)}},
        "deaths": {"killed": dict(death), "frozen": dict(death)},
        "false_deaths_before": [],
        "tasks_lost": 0,
    }
    for name, value in changes.items():
        where, _, field = name.rpartition("__")
        (made["deaths"][where] if where else made)[field] = value
    return made


def failing(**changes) -> list[str]:
    return [verdict["what"] for verdict in figures.verdicts(document(**changes)) if not verdict["holds"]]


def test_each_target_fails_by_itself() -> None:
    assert failing() == []
    assert failing(leader=10.0) == ["leader, % of a core"]
    assert failing(killed__unnoticed=1) == ["killed nodes noticed by all, s"]
    assert failing(frozen__leader_missed=1) == ["frozen nodes noticed by all, s"]
    assert failing(frozen__all_noticed_everywhere_s=5.1) == ["frozen nodes noticed by all, s"]
    assert failing(killed__leader_s=5.1) == ["killed nodes noticed by all, s"]
    assert failing(killed__false_deaths=["n1"]) == ["false deaths"]
    assert failing(false_deaths_before=["n1"]) == ["false deaths"]
    assert failing(tasks_lost=1) == ["tasks lost"]


def test_windows_keep_their_lowest_and_highest() -> None:
    found = figures.summed([{"a": 1.0, "b": 5.0}, {"a": 3.0}, {"a": 2.0}])
    assert found == {"a": {"median": 2.0, "low": 1.0, "high": 3.0}, "b": {"median": 5.0, "low": 5.0, "high": 5.0}}
