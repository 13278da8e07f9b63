"""How long a thread of a process has been in one uninterruptible sleep, as it is while a disk hangs.

A small write may succeed on a device that hangs, because the page cache takes it: for 7 s with ext4 (6.18). The server
flushes its files every second, and its threads hang at once. Linux shows that in /proc; elsewhere only the write does.
"""

from __future__ import annotations

import os
import re

_UNINTERRUPTIBLE = re.compile(rb"^State:\s+D.*^voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE | re.DOTALL)


def waits(status: bytes) -> int:
    """The number of the uninterruptible sleep that a thread is in, from its /proc status; 0 for any other state. Pure.

    The number is that of its voluntary context switches: while it stays the same, the thread is in the same sleep.
    """
    found = _UNINTERRUPTIBLE.search(status)
    return int(found[1]) if found is not None else 0


class BlockedThreads:
    """Remembers since when the threads of one process have been in such a sleep."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, str, int], float] = {}

    def look(self, pid: int | None, now: float) -> float | None:
        """The longest time that a thread has been seen in one such sleep, seconds; None when none is."""
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
