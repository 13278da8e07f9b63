"""How the tests are distributed to parallel processes: which tests form a group, and in which order groups run.

Most of the suite waits (for a lease to run out, for a server to be elected), so there are more processes than cores.
They take groups of tests from one queue, which this file puts in order; tests/conftest.py tells pytest-xdist.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import PurePath

#: Folders whose tests are long and wait most of the time: each of their tests is a group of its own.
SCENES = ("lan", "faults")
#: Folders whose tests share what costs much to load (the syntax trees of the project; PyTorch): each is one group.
SHARING = ("architecture", "contract")
#: Folders whose tests wait for processes and servers.
WAITING = (*SCENES, "integration")
#: Prefixes of the groups that use more than some three seconds of CPU time: they encode videos, train, load large
#: libraries, measure, or try many examples.
HEAVY = (
    "test_workload", "test_training_", "test_video_", "test_splitting", "test_images_mesh", "test_image_operations",
    "test_scaling_", "test_forecast_child", "test_bench", "test_measuring", "test_capabilities", "test_kind_examples",
    "test_decoding", "test_plan", *SHARING,
)  # fmt: skip
#: Long groups start within this first share of the queue: the rest of it holds short ones.
_LAST_LONG = 0.7
_PER_CORE, _MEMORY_EACH, _MOST = 2, 2 << 30, 24


def group_of(nodeid: str) -> str:
    """The group of a test: its file, whose tests may share a node or a model; a long scene is a group alone."""
    file = nodeid.partition("::")[0]
    folder = _folder(file)
    if folder in SHARING:
        return str(PurePath(file).parent)
    return nodeid if folder in SCENES else file


def in_order(groups: Iterable[str]) -> list[str]:
    """The queue, the same in every process: scenes first, groups that compute for long after them."""
    return sorted(groups, key=lambda group: (_place(group), group))


def _place(group: str) -> float:
    chance = zlib.crc32(group.encode()) / (1 << 32)
    file = PurePath(group.partition("::")[0])
    folder = _folder(str(file))
    if folder in SCENES:
        return chance * _LAST_LONG / 2
    if file.name.startswith(HEAVY):
        # After the scenes: beside such a group, a node of a scene may get no CPU for seconds, which is a fault itself.
        return (1 + chance) * _LAST_LONG / 2
    return chance * _LAST_LONG if folder in WAITING else chance


def _folder(file: str) -> str:
    parts = PurePath(file).parts
    return parts[parts.index("tests") + 1] if "tests" in parts[:-1] else ""


def processes(memory_bytes: int, waiting: bool = True) -> int:
    """How many processes to run: two a core, or cores + 1 where no test waits, limited by the memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST, _PER_CORE * cores if waiting else cores + 1, memory_bytes // _MEMORY_EACH))
