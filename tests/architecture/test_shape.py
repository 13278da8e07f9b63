"""The shape of the source: small files, small functions, bare packages, subjects in one place."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("mesh", "node", "api", "bench", "scaling")
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
#: The first token of every subject of the mesh, as f-strings and wildcards would spell it.
_STEM = r"(?:work|task|task_updates|lane|cancel|later|dead|metric|mesh\.event)"
_BUILT = re.compile(rf"{_STEM}\.|node\.")
_WILDCARD = re.compile(rf"(?:{_STEM}|node)\.(?:[\w.*-]*\.)?[*>](?:\.[\w.*>-]+)?")


def sources(*folders: str) -> list[tuple[str, ast.Module, str]]:
    """(path from the root, syntax tree, text) of every Python file under `folders`."""
    return [source for folder in folders for source in _sources(folder)]


@functools.cache
def _sources(folder: str) -> list[tuple[str, ast.Module, str]]:
    found = []
    for file in sorted((ROOT / folder).rglob("*.py")):
        text = file.read_text()
        found.append((str(file.relative_to(ROOT)), ast.parse(text), text))
    return found


def test_no_file_is_longer_than_350_lines():
    lengths = {path: text.count("\n") for path, _, text in sources(*PACKAGES, "tests")}
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_FILE_LINES}


def test_no_function_is_longer_than_60_lines():
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    long = {
        f"{path}:{node.name}": node.end_lineno - node.lineno + 1
        for path, tree, _ in sources(*PACKAGES, "tests")
        for node in ast.walk(tree)
        if isinstance(node, functions) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


def test_package_files_hold_a_docstring_and_nothing_else():
    bare = [(path, tree) for path, tree, _ in sources(*PACKAGES) if path.endswith("__init__.py")]
    assert {path.split("/")[0] for path, _ in bare} == set(PACKAGES)
    assert not [path for path, tree in bare if len(tree.body) != 1 or not ast.get_docstring(tree)]


def test_every_file_has_a_docstring():
    assert not [path for path, tree, _ in sources(*PACKAGES, "tests") if not ast.get_docstring(tree)]


def test_tests_are_no_packages():
    # pytest's importlib mode breaks on tests/node/__init__.py: it shadows the package `node`.
    assert not list((ROOT / "tests").rglob("__init__.py"))


def _built_subjects(tree: ast.Module) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
            text = str(node.values[0].value)
            if _BUILT.fullmatch(text):
                found.append(f"line {node.lineno}: f-string that begins with {text!r}")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _WILDCARD.fullmatch(node.value):
            found.append(f"line {node.lineno}: {node.value!r}")
    return found


def test_subjects_are_built_in_one_file_only():
    built = {path: _built_subjects(tree) for path, tree, _ in sources(*PACKAGES)}
    assert built.pop("mesh/subjects.py")
    assert not {path: where for path, where in built.items() if where}


def test_source_names_no_stub():
    stubs = re.compile(r"\bTODO\b|\bFIXME\b|\bXXX\b|NotImplementedError")
    assert not [path for path, _, text in sources(*PACKAGES) if stubs.search(text)]


def test_no_exception_is_silently_swallowed():
    silent = {}
    for path, tree, _ in sources(*PACKAGES):
        for node in ast.walk(tree):
            if not isinstance(node, ast.ExceptHandler) or not all(isinstance(step, ast.Pass) for step in node.body):
                continue
            broad = node.type is None or (isinstance(node.type, ast.Name) and "Exception" in node.type.id)
            if broad:
                silent[path] = node.lineno
    assert not silent


def test_shell_entry_points_are_valid():
    for script in ("start.sh", "test.sh", "deploy/environment.sh"):
        subprocess.run(["sh", "-n", str(ROOT / script)], check=True)
    assert sys.version_info >= (3, 11)
