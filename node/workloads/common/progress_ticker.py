"""Reports the progress of a library call that reports none itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from node.executor.context import Context

EVERY_S = 0.5
#: The largest share that an estimate reports.
ALMOST = 0.95


@contextmanager
def ticking(
    context: Context, note: str, begin: float, end: float, expected_s: float = 0.0
) -> Generator[None, None, None]:
    """While the body runs, report `note` and the elapsed seconds every half second.

    The fraction grows from `begin` towards `end` over `expected_s` seconds; 0: unknown, so it stays at `begin`.
    """
    stop, started = threading.Event(), time.monotonic()

    def tick() -> None:
        while not stop.wait(EVERY_S):
            ran_s = time.monotonic() - started
            share = min(ALMOST, ran_s / expected_s) if expected_s else 0.0
            context.progress(begin + (end - begin) * share, f"{note}, {ran_s:.0f} s")

    ticker = threading.Thread(target=tick, daemon=True)
    context.progress(begin, note)
    ticker.start()
    try:
        yield
    finally:
        stop.set()
        ticker.join()
