"""Settings of every test: no traffic leaves this machine, and no result depends on how fast it is."""

from __future__ import annotations

import gc
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

from tests import children, side_by_side

# Nodes that a test starts as processes use loopback only: no test multicasts into a real network.
os.environ["QUEZTL_INTERFACE"] = "lo"

# Bytecode is cached whatever the environment says: the tests start hundreds of interpreters, and each would spend a
# quarter of its start compiling.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A script's background job ignores SIGINT, and its child processes inherit that: tests that send SIGINT would hang.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

children.guard()

#: Space that the folders of a whole run may need, bytes: ten times what they take.
_ROOM = 4 << 30


def _in_memory() -> Path | None:
    """A folder in memory with enough space that allows programs to run; None where the system has none."""
    folder = Path("/dev/shm")
    if not folder.is_dir() or not os.access(folder, os.W_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return None
    return folder if shutil.disk_usage(folder).free > _ROOM else None


# Nodes and bus servers sync small files all the time: on a busy disk, each sync would delay a test by seconds. No test
# cuts the machine's power, so what a killed process wrote survives in memory as it does on a disk.
if "TMPDIR" not in os.environ and (memory := _in_memory()) is not None:
    os.environ["TMPDIR"] = tempfile.tempdir = str(memory)

# The cache that nodes share (results of library probes) belongs to this run, and all its processes use it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="queztl-tests-")
    os.environ["XDG_CACHE_HOME"] = _CACHE.name

# The suite tries the same examples in each run, so that a failure comes from the change under test;
# HYPOTHESIS_PROFILE=explore searches for new ones. `./test.sh --quick` tries the first 30 of them (quick).
_SLOW = [HealthCheck.too_slow]
settings.register_profile("queztl", deadline=None, max_examples=100, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("quick", deadline=None, max_examples=30, derandomize=True, suppress_health_check=_SLOW)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "queztl"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In a run of several processes, order the tests as `side_by_side` says."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        groups: dict[str, list[pytest.Item]] = {}
        for item in items:
            groups.setdefault(side_by_side.group_of(item.nodeid), []).append(item)
        items[:] = [item for group in side_by_side.in_order(groups) for item in groups[group]]


def pytest_collection_finish() -> None:
    """Tell the garbage collector not to look again and again through modules and tests, which stay until the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The worker processes take whole groups of tests from one queue, unless `--dist` says otherwise."""
    from xdist.scheduler import LoadScopeScheduling

    class Queue(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return side_by_side.group_of(nodeid)

    if config.getoption("dist") != "load":
        return None
    config.option.loadscopereorder = False  # keep the order of the tests
    return Queue(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The number of processes for `-n auto` (tests that wait) and for `-n logical` (tests that compute)."""
    waiting = config.option.numprocesses == "auto"
    return side_by_side.processes(psutil.virtual_memory().available, waiting)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that fails, or runs out of time, leaves no process behind that it has not ended."""
    with children.ended_after_failure():
        return (yield)


@pytest.fixture(autouse=True)
def _like_everybody() -> Iterator[None]:
    """No test leaves this process with real-time priority: the processes it starts later would inherit it."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER, "a library has made this process a real-time one"
