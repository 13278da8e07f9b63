"""A node that can't start prints one sentence and exits with code 2: never a traceback, never silence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.discovery.identity import open_data_dir
from tests.nodes import ROOT
from tests.ports import free_port

WITHIN_S = 120.0


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m node` to its end; for nodes that can't start."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("QUEZTL_")}
    flags = ["--interface", "lo", "--mesh", f"bad{free_port()}", "--data", str(folder), *arguments]
    if "--api" not in arguments:
        flags += ["--api", "127.0.0.1:0"]
    return subprocess.run(
        [sys.executable, "-m", "node", *flags], cwd=ROOT, env=kept | environment,
        capture_output=True, text=True, timeout=WITHIN_S, check=False,
    )  # fmt: skip


def refused_with(ended: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Check that stderr has one sentence with these parts, and that the exit code is 2."""
    assert ended.returncode == 2, ended
    lines = [line for line in ended.stderr.splitlines() if " warning " not in line and " info " not in line]
    assert len(lines) == 1, ended.stderr
    assert all(part in lines[0] for part in parts), lines[0]
    assert "Traceback" not in ended.stderr + ended.stdout


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another socket listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def test_the_api_port_is_taken(tmp_path: Path, taken: int) -> None:
    refused_with(start(tmp_path / "node", "--api", f"127.0.0.1:{taken}"), str(taken), "--api")


def test_the_bus_port_is_taken(tmp_path: Path, taken: int) -> None:
    refused_with(start(tmp_path / "node", "--bus-port", str(taken)), str(taken), "is taken")


def test_the_data_directory_belongs_to_another_node(tmp_path: Path) -> None:
    held = open_data_dir(tmp_path / "node")
    try:
        refused_with(start(tmp_path / "node"), str(tmp_path / "node"), "--data")
    finally:
        held.close()


def test_nats_server_is_missing(tmp_path: Path) -> None:
    refused_with(start(tmp_path / "node", NATS_SERVER=str(tmp_path / "nowhere")), "nowhere", "NATS_SERVER")


def test_nats_server_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "nats-server"
    old.write_text("#!/bin/sh\necho 'nats-server: v2.9.10'\n")
    old.chmod(0o755)
    refused_with(start(tmp_path / "node", NATS_SERVER=str(old)), "2.9.10", "or later", "pip install")


def test_the_bus_to_join_is_absent(tmp_path: Path) -> None:
    port = free_port()
    refused_with(start(tmp_path / "node", "--join", f"nats://127.0.0.1:{port}"), str(port), "can't join")


def test_the_data_directory_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused_with(start(tmp_path / "file" / "node"), str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can mount a small disk")
def test_the_disk_is_full(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk: {mounted.stderr.strip()}")
    try:
        refused_with(start(small / "node"), "is full", str(small))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_wrong_settings_are_all_named_at_once(tmp_path: Path) -> None:
    ended = start(tmp_path / "node", "--slots", "many", "--preset", "moon", "--label", "x")
    assert ended.returncode == 2
    for name in ("many", "moon", "--label", "--help"):
        assert name in ended.stderr
    assert "Traceback" not in ended.stderr
