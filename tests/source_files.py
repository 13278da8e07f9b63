"""The Python files of the project and their syntax trees: read once per process, for all tests of the architecture."""

from __future__ import annotations

import ast
import functools
import gc
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mesh", "node", "api", "bench", "scaling")


@dataclass(frozen=True)
class SourceFile:
    """One file."""

    path: str
    """From the root of the project, with `/`."""
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]
    """Every node of the tree: walking a tree costs far more than passing over this."""


def sources(*folders: str) -> list[SourceFile]:
    """Every file below `folders`."""
    return [source for folder in folders for source in _sources(folder)]


@functools.cache
def _sources(folder: str) -> list[SourceFile]:
    found = []
    gc.disable()  # it would look through all that was parsed, again and again, and free nothing
    try:
        for file in sorted((ROOT / folder).rglob("*.py")):
            text = file.read_text()
            tree = ast.parse(text)
            found.append(SourceFile(file.relative_to(ROOT).as_posix(), text, tree, tuple(ast.walk(tree))))
    finally:
        gc.enable()
    gc.freeze()
    return found
