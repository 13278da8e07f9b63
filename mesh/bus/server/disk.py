"""The file system of a bus server's store: whether a small write into it succeeds, and how much is free.

A write is tried because free space alone does not tell: a quota, a lack of inodes, a read-only mount and a failing disk
all leave space free. It runs in a thread of its own, because a disk that hangs stops whoever touches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import threading
from pathlib import Path

import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from mesh.bus.server.health import Disk, DiskFault

#: A write that takes longer counts as hanging, seconds.
HANGS_AFTER_S = 10.0
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
    """Looks at the disk of `folder`; a look that hangs is waited for, and never started a second time beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: asyncio.Future[Disk] | None = None

    async def look(self) -> Disk:
        """The state of the disk, within HANGS_AFTER_S."""
        if self._running is None:
            self._running = _in_a_thread(self._folder)
        done, _ = await asyncio.wait({self._running}, timeout=HANGS_AFTER_S)
        if not done:
            return Disk(0, "hangs")
        found, self._running = self._running.result(), None
        return found


def _in_a_thread(folder: Path) -> asyncio.Future[Disk]:
    """`look_at(folder)` in a daemon thread: one that hangs must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Disk] = loop.create_future()

    def settle(found: Disk) -> None:
        if not future.done():
            future.set_result(found)

    def work() -> None:
        found = look_at(folder)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=work, name="disk probe", daemon=True).start()
    return future


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
    return ", ".join(dict.fromkeys(word for word in (Path(nearest.device).name, nearest.fstype) if word))
