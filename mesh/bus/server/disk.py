"""The file system of a bus server's store: whether a small write into it succeeds, and how much is free.

A write is tried because free space alone does not tell: a quota, a lack of inodes, a read-only mount and a failing disk
all leave space free. It runs in a thread of its own, because a disk that hangs stops whoever touches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from mesh.bus.server.blocked_threads import BlockedThreads
from mesh.bus.server.health import Disk, DiskFault

#: The pause between two writes, seconds.
EVERY_S = 1.0
#: A write that takes longer counts as hanging, seconds.
HANGS_AFTER_S = 10.0
#: A disk that has hung works again once no write takes longer than this, seconds.
SLOW_S = 1.0
_POLL_S = 0.25
_PROBE = ".write-probe"
_PROBE_BYTES = 64 * 1024
_FAULTS: dict[int | None, DiskFault] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read-only",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.ENOENT: "gone",
    errno.ENOTDIR: "gone",
}
#: Errors of this process, which say nothing about the disk.
_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class DiskProbe:
    """Writes into `folder` every second, from `start()` to `close()`, in a thread of its own; readable from any thread.

    A write that hangs is waited for; no second one starts beside it. `pid()`: the server that stores there, whose
    threads may hang before the write does.
    """

    def __init__(
        self,
        folder: Path,
        pid: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._pid, self._clock = folder, pid, clock
        self._closing, self._threads = threading.Event(), BlockedThreads()
        self._began_at: float | None = None
        self._hung_since: float | None = None
        self._found: Disk | None = None
        self._wrote_at, self._works_since = -math.inf, math.inf

    def start(self) -> None:
        """Begin. The thread is a daemon: one that hangs must not keep the process from ending."""
        threading.Thread(target=self._run, name="disk probe", daemon=True).start()

    def close(self) -> None:
        """End, as soon as the write under way has finished."""
        self._closing.set()

    @property
    def state(self) -> Disk | None:
        """The disk as the last write found it; None before the first one has finished."""
        return Disk(0, "hangs") if self.hangs_s >= HANGS_AFTER_S else self._found

    @property
    def hangs_s(self) -> float:
        """How long the write under way or a thread of the server has waited for the disk, seconds; 0: neither does."""
        began = [at for at in (self._began_at, self._hung_since) if at is not None]
        return self._clock() - min(began) if began else 0.0

    @property
    def wrote_ago_s(self) -> float:
        """How long ago the last write began that succeeded while the server did not wait, seconds; infinite: none."""
        return self._clock() - self._wrote_at

    @property
    def works_s(self) -> float:
        """For how long every write has succeeded in time, seconds."""
        return max(0.0, self._clock() - self._works_since) if self.hangs_s < SLOW_S else 0.0

    async def until_works(self, rest_s: float, stopping: asyncio.Event) -> None:
        """Wait until no write hangs, and all have succeeded for `rest_s` seconds, or until `stopping` is set."""
        while not stopping.is_set():
            if self.hangs_s < SLOW_S and (not rest_s or self.works_s >= rest_s):
                return
            await asyncio.sleep(_POLL_S)

    def _run(self) -> None:
        while not self._closing.is_set():
            began_at = self._began_at = self._clock()
            self._found = found = look_at(self._folder)
            now, self._began_at = self._clock(), None
            waits_s = self._threads.look(self._pid(), now)
            self._hung_since = now - waits_s if waits_s else None  # not at first sight: every flush is such a wait
            if not found.fault and waits_s is None:
                self._wrote_at = began_at
            if found.fault or max(now - began_at, waits_s or 0.0) >= SLOW_S:
                self._works_since = math.inf
            else:
                self._works_since = min(self._works_since, began_at)
            self._closing.wait(EVERY_S)


def look_at(folder: Path) -> Disk:
    """The state of the disk of `folder`. Blocks."""
    try:
        free_bytes = _free_bytes(folder)
        return Disk(free_bytes, _write(folder / _PROBE))
    except OSError as error:
        return Disk(0, _fault(error))


def _free_bytes(folder: Path) -> int:
    """What this user may still write: root may use the blocks that ext4 reserves."""
    if hasattr(os, "statvfs") and os.geteuid() == 0:
        found = os.statvfs(folder)
        return found.f_bfree * found.f_frsize
    return shutil.disk_usage(folder).free


def _write(file: Path) -> DiskFault:
    try:
        file.write_bytes(b"\x55" * _PROBE_BYTES)
    except OSError as error:
        return _fault(error)
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk, where it is not there either
            file.unlink(missing_ok=True)
    return ""


def _fault(error: OSError) -> DiskFault:
    return "" if error.errno in _OWN else _FAULTS.get(error.errno, "failing")


def name_of(folder: Path) -> str:
    """The file system of `folder` for people, without a path: "sda1, ext4"; "" when it can't be told."""
    try:
        mounted = [
            part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)
        ]
    except OSError:
        return ""
    if not mounted:
        return ""
    nearest = max(mounted, key=lambda part: len(part.mountpoint))
    return ", ".join(dict.fromkeys(filter(None, (Path(nearest.device).name, nearest.fstype))))
