"""Benchmark runs on disk: found by name or path, readable up to a torn last line."""

from __future__ import annotations

import pytest

from bench.harness.measure import BenchFailed
from bench.suite import store
from bench.suite.model import SCHEMA, Outcome, to_line


def outcome(run: str, benchmark: str, took_s: float = 1.0, schema: int = SCHEMA) -> Outcome:
    return Outcome(schema=schema, run=run, benchmark=benchmark, state="ok", at=0.0, took_s=took_s)


def test_a_run_is_found_by_its_name_its_place_and_its_file(tmp_path) -> None:
    for run in ("20260101T000000-1", "20260102T000000-1"):
        store.append(tmp_path, outcome(run, "a"))
        store.append(tmp_path, outcome(run, "b"))
    assert [stored.benchmark for stored in store.read("last", tmp_path)] == ["a", "b"]
    assert store.read("last-1", tmp_path)[0].run == store.read("20260101", tmp_path)[0].run == "20260101T000000-1"
    assert len(store.read(str(tmp_path / "20260102T000000-1.jsonl"), tmp_path)) == 2
    with pytest.raises(BenchFailed, match="no run 'x'; there are 20260101T000000-1, 20260102"):
        store.read("x", tmp_path)
    with pytest.raises(BenchFailed, match="several runs"):
        store.read("2026", tmp_path)
    with pytest.raises(BenchFailed, match="none yet"):
        store.read("last", tmp_path / "empty")


def test_the_latest_outcome_counts_and_a_torn_last_line_does_not(tmp_path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_bytes(to_line(outcome("r", "a")) + to_line(outcome("r", "a", 2.0)) + to_line(outcome("r", "b"))[:20])
    (found,) = store.read("r", tmp_path)
    assert found.took_s == 2.0


def test_lines_of_another_schema_are_named(tmp_path) -> None:
    (tmp_path / "r.jsonl").write_bytes(to_line(outcome("r", "a", schema=99)))
    with pytest.raises(BenchFailed, match=r"line 1: written with schema 99"):
        store.read("r", tmp_path)
