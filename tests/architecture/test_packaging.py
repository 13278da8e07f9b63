"""The wheel: five packages under their own names, two commands, no tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"mesh", "node", "api", "bench", "scaling"}


def test_wheel_holds_the_five_packages_and_both_commands(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in (*PACKAGES, "tests", "docs", "deploy"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    # What an installer calls, in one interpreter: `python -m build` starts three.
    build = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("queztl-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        commands = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert {str(file.relative_to(ROOT)) for name in PACKAGES for file in (ROOT / name).rglob("*.py")} <= set(names)
    assert "queztl = api.cli.main:main" in commands and "queztl-node = node.cli:main" in commands
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_library_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert not [need for need in project["dependencies"] if "numpy" in need or "opencv" in need]
    assert {"science", "vision", "gpu", "all", "dev"} <= set(project["optional-dependencies"])
