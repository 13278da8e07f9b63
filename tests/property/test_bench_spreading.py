"""Accounting of node-seconds: useful, slower and idle shares add up to one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.suite.spreading import Ran, account

TIMES = st.floats(0.01, 100.0)


@given(st.integers(1, 6), st.integers(1, 8), TIMES, TIMES)
def test_every_second_is_useful_slower_or_idle(nodes: int, each: int, took_s: float, alone_s: float) -> None:
    ran = [Ran(f"n{node}", turn * took_s, (turn + 1) * took_s) for node in range(nodes) for turn in range(each)]
    step = account(ran, 1, alone_s, 0.0)
    assert step.nodes == nodes and step.tasks == nodes * each
    assert step.useful + step.slower + step.idle == pytest.approx(1.0)
    assert min(step.useful, step.slower, step.idle) >= -1e-9
    assert step.idle == pytest.approx(0.0, abs=1e-6), "the tasks follow each other without a pause"


def test_a_node_that_waits_is_idle_and_one_that_is_slower_is_slower() -> None:
    alone = account([Ran("a", 0, 1), Ran("a", 1, 2)], 1, 1.0, 0.0)
    assert (alone.efficiency, alone.useful) == (1.0, 1.0)
    late = account([Ran("a", 0, 1), Ran("a", 1, 2), Ran("b", 1, 2), Ran("b", 2, 3)], 1, 1.0, alone.per_s)
    assert late.efficiency == pytest.approx(2 / 3) and late.idle == pytest.approx(1 / 3)
    shared = account([Ran("a", 0, 2), Ran("b", 0, 2)], 1, 1.0, 1.0)
    assert (shared.efficiency, shared.slower, shared.idle) == (0.5, 0.5, 0.0)
