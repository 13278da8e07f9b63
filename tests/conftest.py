"""What holds for every test: nothing leaves this machine, and no result depends on how fast it is."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, settings

from tests import side_by_side

# Nodes that a test starts as processes speak on loopback only: no test ever multicasts into a real network.
os.environ["QUEZTL_INTERFACE"] = "lo"

# Byte code is kept, whatever the environment says: the tests start hundreds of interpreters, and a quarter of each
# start would be compiling.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What a script starts in its background ignores Ctrl-C, and so would all that the tests start, to interrupt it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: What the folders of a whole run may take, bytes: ten times what they do.
_ROOM = 4 << 30


def _in_memory() -> Path | None:
    """A folder in memory with room for all tests and leave to run programs; None where the system has none."""
    folder = Path("/dev/shm")
    if not folder.is_dir() or not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return None
    return folder if shutil.disk_usage(folder).free > _ROOM else None


# Nodes and bus servers sync small files all the time: on a disk that is busy with something else, each test would wait
# for that, for seconds. None of them cuts the power: what a killed process wrote is there, on a disk as in memory.
if "TMPDIR" not in os.environ and (memory := _in_memory()) is not None:
    os.environ["TMPDIR"] = tempfile.tempdir = str(memory)

# What nodes keep for each other (proofs of libraries) is this run's own, and that of all its processes.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="queztl-tests-")
    os.environ["XDG_CACHE_HOME"] = _CACHE.name

# The suite tries the same examples each time, so that it says something about the change it is run on; new ones are
# looked for with HYPOTHESIS_PROFILE=explore. `./test.sh --quick` tries the first of them (quick).
_SLOW = [HealthCheck.too_slow]
settings.register_profile("queztl", deadline=None, max_examples=100, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("quick", deadline=None, max_examples=30, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "queztl"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In one of several processes, the tests come in the order of `side_by_side`."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        groups: dict[str, list[pytest.Item]] = {}
        for item in items:
            groups.setdefault(side_by_side.group_of(item.nodeid), []).append(item)
        items[:] = [item for group in side_by_side.in_order(groups) for item in groups[group]]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Several processes take whole groups from one queue, unless `--dist` says otherwise."""
    from xdist.scheduler import LoadScopeScheduling

    class Queue(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return side_by_side.group_of(nodeid)

    if config.getoption("dist") != "load":
        return None
    config.option.loadscopereorder = False  # the order is that of the tests
    return Queue(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """What `-n auto` means here, and `-n logical`, which is for tests that compute."""
    waiting = config.option.numprocesses == "auto"
    return side_by_side.processes(psutil.virtual_memory().available, waiting)


@pytest.fixture(autouse=True)
def _like_everybody() -> Iterator[None]:
    """No test leaves this process more important than what it measures: whatever it starts later would be, too."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER, "a library has made this process a real-time one"
