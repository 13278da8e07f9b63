"""For how long a thread of a process has been in one uninterruptible wait, as for a disk that hangs.

A small write may succeed on a device that hangs, because the page cache takes it: for 7 s with ext4 (6.18). The server
flushes its files every second, and its threads hang at once. Linux says so in /proc; elsewhere only the write tells.
"""

from __future__ import annotations

import os
import re

_UNINTERRUPTIBLE = re.compile(rb"^State:\s+D.*^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE | re.DOTALL)


def waits(status: bytes) -> int:
    """The number of the wait in which the thread is that /proc describes so; 0 when it runs or can be woken. Pure.

    It counts the waits: a thread with the same number is in the same one.
    """
    found = _UNINTERRUPTIBLE.search(status)
    return int(found[1]) if found is not None else 0


class BlockedThreads:
    """Remembers the waits of one process from look to look."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, str, int], float] = {}

    def look(self, pid: int | None, now: float) -> float | None:
        """For how long one of its threads has waited so, as seen by the looks, seconds; None when none does."""
        found: set[tuple[int, str, int]] = set()
        for thread in _names(f"/proc/{pid}/task") if pid else ():
            if number := waits(_read(f"/proc/{pid}/task/{thread}/status")):
                found.add((pid or 0, thread, number))
        self._since = {wait: self._since.get(wait, now) for wait in found}
        return max((now - since for since in self._since.values()), default=None)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # it has ended, or there is no /proc
        return []


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as status:
            return status.read()
    except OSError:  # the thread has ended
        return b""
