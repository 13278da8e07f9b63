"""The niceness of child processes: a daemon that gets no CPU time for a second must give its deliveries up.

The parent sets it as soon as the child runs. A child that did it itself would first import its libraries, and compete
with the daemon for that second.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

#: Linux lets a user without CAP_SYS_ADMIN set the niceness of one session, and of the next one after 0.1 s.
AGAIN_S = 0.11
_LINUX = sys.platform.startswith("linux")


async def lower(pid: int, niceness: int, ended: Callable[[], bool]) -> None:
    """Set the niceness of the process `pid`, whose later threads inherit it, and of the session that it leads.

    The session may take several attempts, which end when `ended` says so. Linux autogroup scheduling shares the CPU
    between sessions first: a process that leads a session would get as much CPU time as its daemon, whatever its own
    niceness.
    """
    with suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
    if not _LINUX:
        return
    while not ended():
        try:
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
            return
        except BlockingIOError:  # another session was set a moment ago
            await asyncio.sleep(AGAIN_S)
        except OSError:
            return  # a kernel without autogroups, where niceness counts between all processes; or the process ended
