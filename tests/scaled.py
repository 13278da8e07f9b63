"""Nodes that the scaler of a test's mesh started: they are children of no test process."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

from scaling.providers.local import read_tag


def started(folder: Path) -> dict[str, psutil.Process]:
    """Launch token -> the daemon of each node that the scaler of this test's mesh started."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or ()
        tag = read_tag(command)
        if tag is not None and any(str(folder) in argument for argument in command):
            found[tag[2]] = process
    return found


def kill_started(folder: Path) -> None:
    """Kill these nodes: they would search for their mesh until their dead-man switch ends them."""
    for process in started(folder).values():
        with contextlib.suppress(psutil.Error):
            for member in (process, *process.children(recursive=True)):
                member.kill()
