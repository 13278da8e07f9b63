"""The steps of docs/adding-a-kind.md, followed word for word, give a kind that works."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
from pathlib import Path
from mesh.kinds.table import KINDS, WorkloadType, schema, validate
from node.executor.context import Context, load
kind = WorkloadType.REVERSE
payload = validate(kind, KINDS[kind].example)
print(load(kind)(payload, Context(1, Path(".")))["text"], schema(kind)["title"])
"""


def test_the_steps_of_the_page_make_a_kind(tmp_path):
    steps = (ROOT / "docs" / "adding-a-kind.md").read_text().partition("\n## ")[0]
    paths = re.findall(r"^\d\. Its \w+, `([\w/.]+)`", steps, re.MULTILINE)
    blocks = re.findall(r"^   ```python\n(.*?)^   ```", steps, re.MULTILINE | re.DOTALL)
    assert len(paths) == len(blocks) == 2
    for package in ("mesh", "node", "tests"):
        shutil.copytree(ROOT / package, tmp_path / package)  # with the bytecode: two interpreters would make it again
    for path, block in zip(paths, blocks, strict=True):
        (tmp_path / path).write_text(textwrap.dedent(block))
    table = tmp_path / "mesh/kinds/table.py"
    text = table.read_text()
    old, new = '    "echo",\n', '    "echo",\n    "reverse",\n'
    assert text.count(old) == 1
    table.write_text(text.replace(old, new))
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["cba", "ReversePayload"], done.stderr
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "reverse"]
    done = subprocess.run(
        [*command, "tests/contract/test_kinds.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr
