"""The event loop of a benchmark: uvloop where it is installed, as in a node."""

from __future__ import annotations

import asyncio


def runner() -> asyncio.Runner:
    """A runner for one benchmark; use as a context manager."""
    try:
        import uvloop
    except ImportError:
        return asyncio.Runner()
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
