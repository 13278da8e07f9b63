"""Starts a node whose clock is wrong: `python -m tests.shifted_clock SECONDS [flags of the node]`.

Everything else is the real program. The time is shifted before any module of Queztl is imported; monotonic time and the
clocks of the processes it starts (workers, nats-server) stay as they are.
"""

from __future__ import annotations

import runpy
import sys
import time


def main() -> None:
    """Shift this process's clock, then be `python -m node`."""
    by_s, true, true_ns = float(sys.argv.pop(1)), time.time, time.time_ns
    time.time = lambda: true() + by_s
    time.time_ns = lambda: true_ns() + int(by_s * 1e9)
    runpy.run_module("node", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
