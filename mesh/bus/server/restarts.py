"""When a server that died is started again: the decision of `supervisor.py`. Pure."""

from __future__ import annotations

MEMORY_S = 60.0
"""Deaths longer ago than this are ignored."""
_FIRST_S = 0.1
_LONGEST_S = 5.0


def remembered(deaths: tuple[float, ...], now: float) -> tuple[float, ...]:
    """`deaths` (monotonic seconds) that still count at `now`."""
    return tuple(death for death in deaths if now - death < MEMORY_S)


def restart_delay_s(deaths: tuple[float, ...], now: float) -> float:
    """How long to wait before starting a server that just died, `deaths` including this one.

    At once the first time (a kill, a crash); doubling from 0.1 s to 5 s for one that keeps dying. Never gives up:
    the queue lives in that server's store and nowhere else.
    """
    count = len(remembered(deaths, now))
    return 0.0 if count <= 1 else min(_LONGEST_S, _FIRST_S * 2.0 ** min(count - 2, 16))
