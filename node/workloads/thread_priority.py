"""Libraries that make themselves more important than everything else on the machine, brought back to their place.

SVT-AV1 run by root, as in most containers, turns its threads and whoever opens it into SCHED_FIFO of priority 99: while
they compute nothing else runs, not the node that must beat, not its bus server, and children inherit it.
"""

from __future__ import annotations

import contextlib
import os


def renounce() -> None:
    """Every thread of this process is scheduled as everybody's are. Call it after what may have changed that."""
    if not hasattr(os, "sched_setscheduler") or not os.path.isdir("/proc/self/task"):
        return
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.sched_getscheduler(thread) in (os.SCHED_FIFO, os.SCHED_RR):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
