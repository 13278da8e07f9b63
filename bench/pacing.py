"""An open loop: calls at even intervals, whatever became of the calls before.

The timers of an event loop go by whole milliseconds: at 2,000 a second calls would leave in bursts of two to four, and
each would wait for the others of its burst. So a thread sleeps until a call is due and wakes the loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable


async def evenly(rate_per_s: float, count: int, call: Callable[[int], object]) -> None:
    """`call(number)` in the loop, for 0 to `count` - 1, the n-th no earlier than n / `rate_per_s` seconds from now.

    Returns when all were made. Cancelled, it makes no more.
    """
    loop, made = asyncio.get_running_loop(), asyncio.Event()
    over = threading.Event()

    def due(number: int) -> None:
        if not over.is_set():
            call(number)
            if number == count - 1:
                made.set()

    def pace() -> None:
        began = time.perf_counter()
        for number in range(count):
            wait_s = began + number / rate_per_s - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            if over.is_set():
                return
            loop.call_soon_threadsafe(due, number)

    if not count:
        return
    pacer = threading.Thread(target=pace, name="pacer", daemon=True)
    pacer.start()
    try:
        await made.wait()
    finally:
        over.set()
        pacer.join()
