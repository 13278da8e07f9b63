"""Progress of work that can't tell any: a call into a library that returns when it is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from node.executor.context import Context

EVERY_S = 0.5
#: An estimate never says that all is done.
ALMOST = 0.95


@contextmanager
def ticking(
    context: Context, note: str, begin: float, end: float, expected_s: float = 0.0
) -> Generator[None, None, None]:
    """While its body runs, tells `note` and the seconds it has run, every half second.

    The fraction goes from `begin` towards `end` at the pace that `expected_s` says; it stays at `begin` when that
    is 0, because nobody knows.
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
