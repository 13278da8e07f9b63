"""The file descriptors of this process: how many it may open, and how many are open."""

from __future__ import annotations

import os
import resource
import sys

#: The soft limit is raised up to this: more would only make what walks through all descriptors slow.
ENOUGH = 65_536
_OPEN = "/proc/self/fd" if sys.platform.startswith("linux") else "/dev/fd"


def raise_limit() -> int:
    """Raise the soft limit as far as the hard one allows; how many this process may open now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = ENOUGH if hard == resource.RLIM_INFINITY else min(ENOUGH, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
        except (ValueError, OSError):
            return soft  # macOS has a lower limit of its own
        return target
    return limit()


def limit() -> int:
    """How many descriptors this process may open."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return soft if soft != resource.RLIM_INFINITY else ENOUGH


def hard_limit() -> int:
    """How many descriptors a process may open that raises its own limit, as nats-server does."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard if hard != resource.RLIM_INFINITY else ENOUGH


def alarm(share: float) -> str:
    """A sentence when more than `share` of the descriptors are open, else ""."""
    most = limit()
    try:
        count = len(os.listdir(_OPEN)) - 1  # without the one that reads this list
    except OSError:
        return f"This node can open no further file: all its {most} file descriptors are in use (ulimit -n)."
    if count < share * most:
        return ""
    return f"{count} of {most} file descriptors of this node are open; without one it can't serve or work (ulimit -n)."
