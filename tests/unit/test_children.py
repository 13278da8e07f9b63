"""What a test starts ends with it, and with a run that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import children

pytestmark = pytest.mark.skipif(not children.LINUX, reason="needs /proc")
ROOT = Path(__file__).parents[2]
SLEEP = ["sleep", "1000"]


def test_a_child_that_a_test_does_not_end_is_ended_after_it() -> None:
    with subprocess.Popen(SLEEP) as before:
        with pytest.raises(KeyboardInterrupt), children.ended_after_failure():
            left = subprocess.Popen(SLEEP, start_new_session=True)
            raise KeyboardInterrupt
        assert left.wait(10) == -signal.SIGKILL and before.poll() is None
        with children.ended_after_failure():
            pass
        assert before.poll() is None
        before.kill()


def test_what_a_killed_run_has_started_ends(tmp_path: Path) -> None:
    """A measurement of minutes went on alone, with its nodes, and took the processor from the next run."""
    script = (
        "import subprocess, sys; from tests import children; children.guard();"
        "child = subprocess.Popen(['sh', '-c', 'sleep 1000 & echo $! & wait'], start_new_session=True);"
        "print(child.pid, flush=True); child.wait()"
    )
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT, text=True)
    started = [psutil.Process(int(run.stdout.readline())) for _ in range(2)]
    run.kill()
    run.communicate()
    assert not psutil.wait_procs(started, timeout=20)[1]
