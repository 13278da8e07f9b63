"""How much of the machine is in use: CPU time and memory. It goes on when the process has no file descriptor left.

A heartbeat carries these figures, and a node whose heartbeat fails is given up. So the files are opened once, and a
figure that can't be read is the last one.
"""

from __future__ import annotations

import os
import sys

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

_READ_BYTES = 8192
_LINUX = sys.platform.startswith("linux")


class MachineUsage:
    """Reads the figures of this machine. No method raises."""

    def __init__(self) -> None:
        self._stat = _opened("/proc/stat")
        self._meminfo = _opened("/proc/meminfo")
        self._times = (0.0, 0.0)
        self._cpu_percent, self._memory_used_bytes = 0.0, 0
        self.cpu_percent()

    def cpu_percent(self) -> float:
        """The share of CPU time that was in use since the last call, percent."""
        before, self._times = self._times, self._cpu_times() or self._times
        busy, total = self._times[0] - before[0], self._times[1] - before[1]
        if total > 0:
            self._cpu_percent = round(min(100.0, max(0.0, 100.0 * busy / total)), 1)
        return self._cpu_percent

    def memory_used_bytes(self) -> int:
        """Memory that programs can't get without swapping, bytes."""
        try:
            if self._meminfo < 0:
                memory = psutil.virtual_memory()
                self._memory_used_bytes = memory.total - memory.available
            else:
                self._memory_used_bytes = memory_used(os.pread(self._meminfo, _READ_BYTES, 0))
        except (OSError, ValueError, LookupError, psutil.Error):
            return self._memory_used_bytes
        return self._memory_used_bytes

    def _cpu_times(self) -> tuple[float, float] | None:
        """(busy, all) CPU time so far, in one unit; None when it can't be read."""
        try:
            if self._stat < 0:
                times = psutil.cpu_times()
                return sum(times) - times.idle, sum(times)
            return cpu_times(os.pread(self._stat, _READ_BYTES, 0))
        except (OSError, ValueError, LookupError, psutil.Error):
            return None

    def close(self) -> None:
        """Close the files."""
        for fd in (self._stat, self._meminfo):
            if fd >= 0:
                os.close(fd)
        self._stat = self._meminfo = -1


def cpu_times(stat: bytes) -> tuple[float, float]:
    """(busy, all) CPU time in the text of /proc/stat. Pure. Raises: ValueError, LookupError."""
    # user nice system idle iowait irq softirq steal; user contains the time of guests.
    fields = [float(field) for field in stat.split(b"\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def memory_used(meminfo: bytes) -> int:
    """Bytes in use, of the text of /proc/meminfo. Pure. Raises: ValueError, LookupError."""
    lines = dict(line.split(b":", 1) for line in meminfo.splitlines() if b":" in line)
    total, available = (int(lines[name].split()[0]) for name in (b"MemTotal", b"MemAvailable"))
    return (total - available) * 1024


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC) if _LINUX else -1
    except OSError:
        return -1
