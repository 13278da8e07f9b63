"""A worker keeps freed buffers for its next job, and gives them back once it is idle."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

#: Page faults and memory of buffers of 40 MiB, one after the other, in a process of its own.
MEASURE = """
import json, resource, sys
from node.executor import limits, memory_reuse
give_back = memory_reuse.keep_freed() if sys.argv[1] == "keep" else lambda: None

def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        bytearray(b"x" * (40 << 20))
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults(1)
later = faults(int(sys.argv[2]))
kept = limits.resident_bytes(__import__("os").getpid())
give_back()
print(json.dumps([first, later, kept, limits.resident_bytes(__import__("os").getpid())]))
"""


def measure(how: str, mib: int = 40, later: int = 4) -> list[int]:
    root, code = Path(__file__).parents[2], MEASURE.replace("40 << 20", f"{mib} << 20")
    done = subprocess.run(
        [sys.executable, "-c", code, how, str(later)], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    return list(json.loads(done.stdout))


def test_the_next_buffer_of_the_same_size_needs_no_new_pages() -> None:
    first, later, _, _ = measure("keep")
    assert later < first / 20
    _, without, _, _ = measure("not")
    assert without > later * 20


def test_an_idle_worker_gives_the_memory_back() -> None:
    _, _, kept, left = measure("keep")
    assert kept - left > 64 << 20


def test_a_buffer_larger_than_the_limit_is_not_kept() -> None:
    _, _, kept, left = measure("keep", mib=170, later=1)
    assert kept - left < 16 << 20
