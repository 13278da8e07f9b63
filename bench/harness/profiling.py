"""CPU profiles under load: py-spy on each Python process of a node, and on the benchmark itself.

py-spy is not a dependency: `--profile` needs it installed beside the interpreter, or on the PATH.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections import Counter
from collections.abc import Awaitable, Mapping
from pathlib import Path

from bench.harness.measure import BenchFailed
from bench.harness.node_process import NodeProcess

SECONDS = 8


async def record(node: NodeProcess, folder: Path, load: Awaitable[object]) -> None:
    """Profile a node and this process while `load` runs. Raises: see `profile`."""
    pids = {name: child.pid for name, child in node.processes().items() if name not in ("server", "witness")}
    await profile(pids | {"submitter": os.getpid()}, folder, load)


def find_py_spy() -> str:
    """The path of py-spy. Raises: BenchFailed when it is missing."""
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.exists() else shutil.which("py-spy")
    if found is None:
        raise BenchFailed("--profile needs py-spy; install it with: pip install py-spy")
    return found


async def profile(pids: Mapping[str, int], folder: Path, load: Awaitable[object]) -> None:
    """Profile processes for a few seconds while `load` runs; write NAME.raw files, print the top functions on stderr.

    Raises: BenchFailed when py-spy is missing.
    """
    tool = find_py_spy()
    folder.mkdir(parents=True, exist_ok=True)
    running = asyncio.ensure_future(load)
    spies = [
        await asyncio.create_subprocess_exec(
            tool, "record", "--pid", str(pid), "--duration", str(SECONDS), "--rate", "200", "--format", "raw",
            "--nonblocking", "--output", str(folder / f"{name.replace(' ', '-')}.raw"),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )
        for name, pid in pids.items()
    ]  # fmt: skip
    for spy in spies:
        await spy.wait()
    await running
    for name in pids:
        path = folder / f"{name.replace(' ', '-')}.raw"
        if path.exists():
            print(f"\n{name}:\n{top(path.read_text())}", file=sys.stderr)


def top(raw: str, count: int = 15) -> str:
    """The functions with the most samples of their own. `raw`: py-spy's lines of "stack count"."""
    own: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        if stack and samples.isdigit():
            own[stack.rpartition(";")[2].rpartition(":")[0] or stack.rpartition(";")[2]] += int(samples)
    total = sum(own.values()) or 1
    return "\n".join(f"  {samples / total:6.1%}  {name}" for name, samples in own.most_common(count))
