"""The shape of the source: small files, small functions, bare packages, subjects in one place."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable

from tests.source_files import PACKAGES, ROOT, sources

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
#: The first token of every subject of the mesh, as f-strings and wildcards would spell it.
_STEM = r"(?:work|task|task_updates|lane|cancel|later|dead|metric|mesh\.event)"
_BUILT = re.compile(rf"{_STEM}\.|node\.")
_WILDCARD = re.compile(rf"(?:{_STEM}|node)\.(?:[\w.*-]*\.)?[*>](?:\.[\w.*>-]+)?")


def test_no_file_is_longer_than_350_lines():
    lengths = {source.path: source.text.count("\n") for source in sources(*PACKAGES, "tests")}
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES}


def test_no_function_is_longer_than_60_lines():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = {
        f"{source.path}:{node.name}": node.end_lineno - node.lineno + 1
        for source in sources(*PACKAGES, "tests")
        for node in source.nodes
        if isinstance(node, functions) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


def test_package_files_hold_a_docstring_and_nothing_else():
    bare = [source for source in sources(*PACKAGES) if source.path.endswith("__init__.py")]
    assert {source.path.split("/")[0] for source in bare} == set(PACKAGES)
    assert not [source.path for source in bare if len(source.tree.body) != 1 or not ast.get_docstring(source.tree)]


def test_every_file_has_a_docstring():
    assert not [source.path for source in sources(*PACKAGES, "tests") if not ast.get_docstring(source.tree)]


def test_tests_are_no_packages():
    # pytest's importlib mode breaks on tests/node/__init__.py: it shadows the package `node`.
    assert not list((ROOT / "tests").rglob("__init__.py"))


def _built_subjects(nodes: Iterable[ast.AST]) -> list[str]:
    found = []
    for node in nodes:
        if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
            text = str(node.values[0].value)
            if _BUILT.fullmatch(text):
                found.append(f"line {node.lineno}: f-string that begins with {text!r}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _WILDCARD.fullmatch(node.value):
            found.append(f"line {node.lineno}: {node.value!r}")
    return found


def test_subjects_are_built_in_one_file_only():
    built = {source.path: _built_subjects(source.nodes) for source in sources(*PACKAGES)}
    assert built.pop("mesh/subjects.py")
    assert not {path: where for path, where in built.items() if where}


def test_source_names_no_stub():
    stubs = re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError")
    assert not [source.path for source in sources(*PACKAGES) if stubs.search(source.text)]


def test_no_exception_is_silently_swallowed():
    silent = {}
    for source in sources(*PACKAGES):
        for node in source.nodes:
            if not isinstance(node, ast.ExceptHandler) or not all(isinstance(step, ast.Pass) for step in node.body):
                continue
            broad = node.type is None or (isinstance(node.type, ast.Name) and "Exception" in node.type.id)
            if broad:
                silent[source.path] = node.lineno
    assert not silent


def test_shell_entry_points_are_valid():
    for script in ("start.sh", "test.sh", "deploy/environment.sh"):
        subprocess.run(["sh", "-n", str(ROOT / script)], check=True)
    assert sys.version_info >= (3, 11)
