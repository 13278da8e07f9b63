"""Run as a script, between the node and its nats-server: ties the server's life to the node's, then becomes it.

    python -I -S exec.py PARENT_PID own|shared PROGRAM ARGUMENTS…

A function between fork and exec would do the same, but forking a process with threads for one is what Python 3.12
warns of; this costs 20 ms and imports nothing of the project.
"""

import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGTERM = 15


def main() -> None:
    """Never returns: becomes PROGRAM, or ends with 1 when the node is gone already."""
    parent, group, program = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    if group == "own":
        os.setpgid(0, 0)
    if sys.platform == "linux":
        import ctypes

        # Comes when the *thread* that started us ends; the node starts servers from its loop's thread.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
    os.execv(program, sys.argv[3:])


if __name__ == "__main__":
    main()
