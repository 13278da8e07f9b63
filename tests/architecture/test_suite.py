"""The suite itself: each long scene has a shorter representative, and groups of tests stay together."""

from __future__ import annotations

import ast
import re
from pathlib import Path, PurePath

from tests import side_by_side
from tests.source_files import sources

TESTS = Path(__file__).parents[1]


def _tests(marked: str = "") -> set[str]:
    """`path::function` of every test, or of those with that mark."""
    found = set()
    for source in sources("tests"):
        if not source.path.rpartition("/")[2].startswith("test_"):
            continue
        for node in source.tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                marks = {ast.unparse(decorator) for decorator in node.decorator_list}
                if not marked or f"pytest.mark.{marked}" in marks:
                    found.add(f"{source.path}::{node.name}")
    return found


def test_every_long_scene_has_a_shorter_one_in_the_default_suite():
    rows = re.findall(r"^\| `(tests/\S+)`[^|]*\| `(tests/\S+)`", (TESTS / "README.md").read_text(), re.MULTILINE)
    long = _tests("long")
    assert long and {name for name, _ in rows} == long
    assert {shorter for _, shorter in rows} <= _tests() - long


def test_serial_tests_are_in_the_folders_where_test_sh_runs_them():
    serial = _tests("serial")
    assert serial and all(test.startswith(("tests/integration", "tests/lan", "tests/faults")) for test in serial)


def test_files_stay_whole_and_scenes_are_groups_of_their_own():
    group_of = side_by_side.group_of
    assert group_of("tests/unit/test_a.py::test_b[c]") == "tests/unit/test_a.py"
    assert group_of("tests/lan/test_a.py::test_b") == "tests/lan/test_a.py::test_b"
    assert group_of("tests/architecture/test_a.py::test_b") == group_of("tests/architecture/test_c.py::test_d")
    assert group_of("elsewhere/test_a.py::test_b") == "elsewhere/test_a.py"


def test_each_prefix_of_heavy_groups_is_that_of_a_group():
    names = {PurePath(side_by_side.group_of(test)).name for test in _tests()}
    assert not [prefix for prefix in side_by_side.HEAVY if not any(name.startswith(prefix) for name in names)]
    assert "test_workloads_mesh.py".startswith(side_by_side.HEAVY)


def test_the_queue_has_every_group_once_in_a_fixed_order_and_ends_with_short_ones():
    groups = {side_by_side.group_of(test) for test in _tests()}
    queue = side_by_side.in_order(groups)
    assert sorted(queue) == sorted(groups) and queue == side_by_side.in_order(reversed(queue))
    last = queue[len(queue) * 9 // 10 :]
    assert not [group for group in last if group.startswith(("tests/lan", "tests/faults", "tests/integration"))]


def test_processes_fit_the_cores_and_the_memory():
    assert side_by_side.processes(0) == 1 and side_by_side.processes(3 << 30) == 1
    assert 1 < side_by_side.processes(1 << 50, waiting=False) <= side_by_side.processes(1 << 50) <= 24
