"""Workers that start together are all nicer than the daemon, for a user without privileges, too."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import node
from node.executor.limits import NICENESS

CODE = Path(node.__path__[0]).parent
WORKERS = 4
AUTOGROUP = Path("/proc/self/autogroup")
_PR_CAPBSET_DROP, _CAP_SYS_ADMIN = 24, 21

#: Starts the workers at once, waits until the sessions of all are set (or 20 s), and prints what it found.
DRIVER = """
import asyncio, json, os, sys
from pathlib import Path
from node.executor.executor import Executor, Job
from node.executor.limits import NICENESS
from mesh.messages import encode

def session(pid):
    return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])

async def main(folder, workers):
    begun = asyncio.Queue()
    quiet = lambda *what: None
    executor = Executor(
        slots=workers, folder=folder, on_started=begun.put_nowait, on_finished=quiet, on_progress=quiet
    )
    await executor.start()
    executor.submit([Job(str(number), "echo", encode({"sleep_s": 60})) for number in range(workers)])
    for _ in range(workers):
        await begun.get()
    pids = [worker.pid for worker in executor._pool.workers]
    processes = [os.getpriority(os.PRIO_PROCESS, pid) for pid in pids]
    async with asyncio.timeout(20):
        while any(session(pid) != NICENESS for pid in pids):
            await asyncio.sleep(0.05)
    print(json.dumps({"processes": processes, "sessions": [session(pid) for pid in pids]}))
    await executor.stop(0)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


def without_privileges() -> None:
    """Called in the child: Linux then limits how often it may set the niceness of a session."""
    ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_SYS_ADMIN, 0, 0, 0)


@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel has no autogroup scheduling")
def test_the_sessions_of_workers_that_start_together_all_get_their_niceness(tmp_path: Path) -> None:
    """Only the first one got it: the others competed with the daemon as equals."""
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "workers"), str(WORKERS)],
        env={**os.environ, "PYTHONPATH": str(CODE)},
        preexec_fn=without_privileges,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert driver.returncode == 0, driver.stderr
    found = json.loads(driver.stdout)
    assert found == {"processes": [NICENESS] * WORKERS, "sessions": [NICENESS] * WORKERS}
