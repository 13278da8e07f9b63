"""No module, and no folder, imports itself through others. Imports under TYPE_CHECKING and in functions count."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

import pytest

from tests.source_files import PACKAGES, SourceFile, sources

Graph = dict[str, set[str]]


def read_modules() -> dict[str, SourceFile]:
    """Dotted name -> file of every module of the project."""
    return {
        source.path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): source
        for source in sources(*PACKAGES)
    }


def read_imports(modules: Mapping[str, SourceFile]) -> Graph:
    """Module -> the modules of the project that it names in an import statement anywhere."""
    graph: Graph = {}
    for module, source in modules.items():
        found = graph[module] = set()
        for node in source.nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name in modules}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    found |= {name for name in (submodule,) if name in modules} or {node.module} & modules.keys()
        found.discard(module)
    return graph


def folders(modules: Mapping[str, SourceFile]) -> Callable[[str], str]:
    """Module -> its folder. A module beside subfolders is a unit of its own, because it is a layer of its own."""
    files = {module: PurePosixPath(source.path) for module, source in modules.items()}
    parents = {file.parent for file in files.values() if file.name == "__init__.py"}
    mixed = {parent for parent in parents if any(other.parent == parent for other in parents)}

    def folder_of(module: str) -> str:
        file = files[module]
        return module if file.parent in mixed else ".".join(file.parent.parts)

    return folder_of


def grouped(graph: Graph, unit_of: Callable[[str], str]) -> Graph:
    """The same imports, between the units that the modules belong to."""
    found: Graph = {}
    for module, imported in graph.items():
        unit = unit_of(module)
        found.setdefault(unit, set()).update({unit_of(name) for name in imported} - {unit})
    return found


def cycles(graph: Graph) -> list[frozenset[str]]:
    """The strongly connected components with more than one member."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for name in graph.get(waiting.pop(), ()):
                if name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return seen

    reach = {name: reachable(name) for name in graph}
    found = {frozenset(other for other in reach[name] if name in reach.get(other, ())) for name in graph}
    return sorted((cycle for cycle in found if len(cycle) > 1), key=sorted)


@functools.cache
def imports() -> Graph:
    """The imports of the project, read when a test needs them: every test process collects all tests."""
    return read_imports(read_modules())


@pytest.mark.parametrize("unit", ["modules", "folders"])
def test_nothing_imports_itself_through_others(unit):
    graph = imports() if unit == "modules" else grouped(imports(), folders(read_modules()))
    assert not [sorted(cycle) for cycle in cycles(graph)]


def test_a_cycle_is_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [frozenset("abc")]
    assert cycles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
