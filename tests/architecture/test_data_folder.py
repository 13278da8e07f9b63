"""The names in a node's data directory: one owner each, spelled in one module."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

from mesh.data_folder import ENTRIES

ROOT = Path(__file__).parents[2]
OWNER = ROOT / "mesh" / "data_folder.py"
NAMES = {entry.name for entry in ENTRIES}


def test_the_names_differ_also_where_capitals_do_not_count_and_each_has_an_owner() -> None:
    assert len({name.lower() for name in NAMES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert find_spec(entry.owner) is not None and entry.holds, entry


def spelled(tree: ast.AST) -> list[tuple[int, str]]:
    """(line, name) where a path is joined with a name of the table, or such a name with a dot or dash stands."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.right]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "joinpath":
            parts = list(node.args)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and set(node.value) & set(".-"):
            parts = [node]
        else:
            continue
        found += [
            (part.lineno, part.value)
            for part in parts
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.partition("/")[0] in NAMES
        ]
    return found


def sources(part: str) -> dict[str, str]:
    """path -> text of every source file but the table's in which the pattern `part` occurs."""
    found = {}
    for package in ("mesh", "node", "api", "scaling"):  # the benchmarks have temporary folders of their own
        for file in (ROOT / package).rglob("*.py"):
            if file != OWNER and re.search(part, text := file.read_text()):
                found[file.relative_to(ROOT).as_posix()] = text
    return found


def test_no_other_module_spells_one() -> None:
    quoted = "|".join(f"[\"'/]{re.escape(name)}[\"'/]" for name in sorted(NAMES))
    wrong = [
        f"{path}:{line} {name}" for path, text in sources(quoted).items() for line, name in spelled(ast.parse(text))
    ]
    assert not wrong, wrong


def test_spelling_one_is_found() -> None:
    for line in ('x = folder / "started"', 'FILE = "speeds.json"', 'folder.joinpath("work", "a")', 'a / "bus/store"'):
        assert spelled(ast.parse(line)), line
    assert not spelled(ast.parse('kind = "bench"; y = folder / "other"'))


def test_the_data_directory_is_joined_with_names_of_the_table_only() -> None:
    """`….data.path / NAME`: NAME comes from mesh.data_folder."""
    for path, text in sources(r"data\.path /").items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                left, right = ast.unparse(node.left), ast.unparse(node.right)
                if left.endswith("data.path"):
                    assert right.startswith("data_folder."), f"{path}:{node.lineno} {left} / {right}"
