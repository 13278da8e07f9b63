"""Resets the scheduling of threads that a library switched to real-time.

SVT-AV1, when root runs it as in most containers, switches its threads and the thread that opens it to SCHED_FIFO at
priority 99. While they compute, nothing else runs, neither the node, which must send heartbeats, nor its bus server;
and child processes inherit the priority.
"""

from __future__ import annotations

import contextlib
import os


def reset_priority() -> None:
    """Switch all real-time threads of this process to SCHED_OTHER. Call it after a library may have changed them."""
    if not hasattr(os, "sched_setscheduler") or not os.path.isdir("/proc/self/task"):
        return
    for thread in map(int, os.listdir("/proc/self/task")):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.sched_getscheduler(thread) in (os.SCHED_FIFO, os.SCHED_RR):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
