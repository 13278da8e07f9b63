"""The data directory: one node per directory, which keeps its id across restarts."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.discovery.identity import MeshIdentity, default_data_dir, new_token, open_data_dir
from mesh.errors import CannotStart
from mesh.files import write_atomically
from mesh.subjects import is_token

MESH = MeshIdentity("mabcdefgh", "blue", 1_700_000_000.5, "nfounder")


def test_a_node_keeps_its_id_and_gets_a_fresh_incarnation(tmp_path: Path) -> None:
    first = open_data_dir(tmp_path / "data")
    first.close()
    again = open_data_dir(tmp_path / "data")
    assert again.node_id == first.node_id
    assert again.incarnation != first.incarnation
    assert is_token(again.node_id) and is_token(again.incarnation)
    again.close()


def test_it_remembers_its_mesh(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path)
    assert data.mesh is None and data.bus_urls == ()
    data.remember_mesh(MESH, ["nats://10.0.0.1:4222"])
    data.close()
    data = open_data_dir(tmp_path)
    assert data.mesh == MESH and data.bus_urls == ("nats://10.0.0.1:4222",)
    data.close()


def test_others_can_not_read_it(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path / "deep" / "data")
    assert stat.S_IMODE(data.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((data.path / "node.json").stat().st_mode) == 0o600
    data.close()


def test_a_second_node_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    data = open_data_dir(tmp_path)
    with pytest.raises(CannotStart) as refusal:
        open_data_dir(tmp_path)
    assert f"(pid {os.getpid()})" in refusal.value.message and "--data" in refusal.value.message
    data.close()
    open_data_dir(tmp_path).close()


def test_a_killed_node_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from mesh.discovery.identity import open_data_dir\n"
        "d = open_data_dir(pathlib.Path(sys.argv[1])); print(d.node_id, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        node_id = other.stdout.readline().strip()
        with pytest.raises(CannotStart, match=f"pid {other.pid}"):
            open_data_dir(tmp_path)
        other.kill()
        other.wait()
    data = open_data_dir(tmp_path)
    assert data.node_id == node_id
    data.close()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"node_id": "a.b"}', '{"node_id": "n1", "mesh": {"id": 1}}'])
def test_a_damaged_record_is_refused_with_its_path_and_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "node.json").write_text(content)
    with pytest.raises(CannotStart, match="damaged"):
        open_data_dir(tmp_path)
    assert (tmp_path / "node.json").read_text() == content
    (tmp_path / "node.json").unlink()
    open_data_dir(tmp_path).close()  # the lock was released


def test_fields_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text(json.dumps({"node_id": "nabc", "colour": "red", "version": 2}))
    data = open_data_dir(tmp_path)
    assert data.node_id == "nabc"
    data.close()


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotStart, match="can't be written"):
        open_data_dir(tmp_path / "file")


def test_an_interrupted_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a", b"old")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_the_default_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data_dir() == tmp_path / "queztl"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert default_data_dir().parts[-3:] == ("Library", "Application Support", "queztl")


@given(st.sampled_from(["n", "m", "i"]))
def test_a_new_id_is_a_token(prefix: str) -> None:
    token = new_token(prefix)
    assert is_token(token) and token.startswith(prefix) and len(token) == 9 and token == token.lower()
