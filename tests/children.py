"""The processes that a failing test starts end with it, and all others with the process that runs the tests.

A test that runs out of time leaves what it has started; so does a run that is killed. Linux only: elsewhere nothing is
done.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LINUX = sys.platform == "linux"
#: In the environment of everything that this process starts. Not one of QUEZTL_: nodes are started without those.
MARK = "TESTED_BY"
#: Waits for the end of its input, then kills whatever has the mark in its environment, again until nothing has.
_GUARD = """
import os, signal, sys
sys.stdin.buffer.read()
mark = sys.argv[1].encode()
for _ in range(50):
    found = False
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read().split(b"\\0"):
                    os.kill(int(name), signal.SIGKILL)
                    found = True
        except OSError:
            pass
    if not found:
        break
"""


def guard() -> None:
    """Start the process that ends, with this one, all that it has started. Call it once."""
    if not LINUX:
        return
    mark, environment = f"{MARK}={secrets.token_hex(8)}", dict(os.environ)
    reading, writing = os.pipe()  # kept open until this process ends, and not inherited
    subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _GUARD, mark],
        stdin=reading, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd="/",
        start_new_session=True,
    ).returncode = 0  # fmt: skip  # it is not waited for: it outlives this process
    os.close(reading)
    os.set_inheritable(writing, False)
    os.environ[MARK] = mark.partition("=")[2]


def children() -> set[int]:
    """The pids of the direct children of this process."""
    found: set[int] = set()
    for thread in Path("/proc/self/task").glob("*/children") if LINUX else ():
        with contextlib.suppress(OSError):  # a thread that has ended
            found.update(map(int, thread.read_text().split()))
    return found


@contextlib.contextmanager
def ended_after_failure() -> Iterator[None]:
    """Kill what this process starts meanwhile and has not ended, where an error is raised; not Python's own helpers."""
    before = children()
    try:
        yield
    except BaseException:
        for pid in children() - before:
            with contextlib.suppress(OSError):
                if b"multiprocessing" not in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        raise
