"""Nodes that the scaler of a test's mesh started: they belong to no test process."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from scaling.providers.local import read_tag


def started(folder: Path) -> dict[str, psutil.Process]:
    """token -> the daemon of each node that the scaler of this test's mesh started."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or ()
        tag = read_tag(command)
        if tag is not None and any(str(folder) in word for word in command):
            found[tag[2]] = process
    return found


def kill_started(folder: Path) -> None:
    """End them: they would look for their mesh until their dead-man switch."""
    for process in started(folder).values():
        with contextlib.suppress(psutil.Error):
            for one in (process, *process.children(recursive=True)):
                one.kill()
