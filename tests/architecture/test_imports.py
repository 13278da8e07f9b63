"""Imports point one way, pure modules do no I/O, and starting a node loads no heavy library."""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
BRAINS = next(contract for contract in CONTRACTS if contract["name"].startswith("The pure brains"))
HEAVY = ("numpy", "cv2", "torch", "av", "duckdb", "prophet", "boto3", "pandas", "numba", "pynvml")
#: Modules that a file that calls itself pure must not import.
IO_MODULES = {"asyncio", "nats", "aiohttp", "zeroconf", "socket", "subprocess", "threading"}


def loaded_after(*modules: str) -> set[str]:
    """The top-level modules in a fresh interpreter after importing `modules`."""
    imports = ", ".join(modules)
    script = f"import {imports}, json, sys; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_contracts_of_pyproject_are_kept():
    script = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@functools.cache
def loaded_with_the_brains() -> dict[str, set[str]]:
    """Pure module -> the top-level modules of an interpreter that imported it and all before it in the table."""
    script = (
        "import importlib, json, sys; print(json.dumps({brain: (importlib.import_module(brain), "
        "sorted({m.split('.')[0] for m in sys.modules}))[1] for brain in sys.argv[1:]}))"
    )
    command = [sys.executable, "-c", script, *BRAINS["source_modules"]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {brain: set(modules) for brain, modules in json.loads(done.stdout).items()}


@pytest.mark.parametrize("brain", BRAINS["source_modules"])
def test_brain_can_be_imported_without_loop_bus_or_network(brain):
    assert loaded_with_the_brains()[brain].isdisjoint(BRAINS["forbidden_modules"])


@pytest.mark.parametrize(
    "module", ["node.daemon", "node.executor.worker_main", "api.app", "api.cli.main", "mesh.client", "mesh.sync"]
)
def test_heavy_libraries_are_loaded_only_by_the_work_that_needs_them(module):
    assert loaded_after(module).isdisjoint(HEAVY)


def pure_files() -> list[Path]:
    """The files whose docstring says in its first paragraph that they are pure."""
    says_so = re.compile(r"\bPure\.|\(pure\)")
    found = []
    for package in ("mesh", "node", "api", "bench", "scaling"):
        for file in sorted((ROOT / package).rglob("*.py")):
            text = file.read_text()
            if says_so.search(text) is None:  # few files match, and parsing all would delay each test process
                continue
            if says_so.search((ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]):
                found.append(file)
    return found


@pytest.mark.parametrize("file", pure_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_that_calls_itself_pure_imports_no_io_module(file):
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert not imported & IO_MODULES
