"""An open loop: calls at even intervals, whether or not earlier calls have ended.

An event loop's timers have a resolution of a millisecond: 2,000 calls per second would start in bursts of two to four,
and wait for each other. So a thread sleeps until a call is due, and wakes the loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable


async def evenly(rate_per_s: float, count: int, call: Callable[[int], object]) -> None:
    """Make `count` calls of `call(number)` in the event loop, the n-th no earlier than n / `rate_per_s` seconds from
    now.

    Returns after the last call; makes no more calls when it is cancelled.
    """
    loop, all_made = asyncio.get_running_loop(), asyncio.Event()
    stopped = threading.Event()

    def due(number: int) -> None:
        if not stopped.is_set():
            call(number)
            if number == count - 1:
                all_made.set()

    def pace() -> None:
        began = time.perf_counter()
        for number in range(count):
            wait_s = began + number / rate_per_s - time.perf_counter()
            if wait_s > 0:
                time.sleep(wait_s)
            if stopped.is_set():
                return
            loop.call_soon_threadsafe(due, number)

    if not count:
        return
    pacer = threading.Thread(target=pace, name="pacer", daemon=True)
    pacer.start()
    try:
        await all_made.wait()
    finally:
        stopped.set()
        pacer.join()
