"""Load on a mesh: rounds of `echo` tasks with a window, and an open loop. Every answer is checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from bench.harness.measure import BenchFailed, Round
from bench.harness.pacing import evenly
from mesh.client import Mesh

#: Time limit of a round, seconds.
ROUND_WITHIN_S = 120.0


async def mesh_round(mesh: Mesh, tasks: int, window: int, **payload: Any) -> Round:
    """Run `tasks` echo tasks through the SDK, at most `window` of them at a time.

    Raises: BenchFailed when an answer is wrong, missing or late.
    """

    def payloads() -> Iterator[dict[str, Any]]:
        for number in range(tasks):
            yield {"value": number, **payload}

    right, began = 0, time.perf_counter()
    try:
        async with asyncio.timeout(ROUND_WITHIN_S):
            async for item in mesh.map("echo", payloads(), ordered=False, window=window):
                if item.result != {"value": item.index}:
                    raise BenchFailed(f"mesh: task {item.task} answered {item.result!r} ({item.error})")
                right += 1
    except TimeoutError:
        raise BenchFailed(f"mesh: {right} of {tasks} tasks ended within {ROUND_WITHIN_S:g} s") from None
    took_s = time.perf_counter() - began
    if right != tasks:
        raise BenchFailed(f"mesh: {right} of {tasks} tasks came back")
    return Round(tasks, took_s)


async def paced(mesh: Mesh, rate_per_s: float, tasks: int) -> list[float]:
    """Run an open loop at `rate_per_s`; returns the seconds from each call to its result. Raises: BenchFailed."""
    latencies_s: list[float] = []

    async def submit(number: int) -> None:
        began = time.perf_counter()
        result = await mesh.submit("echo", {"value": number}, wait_s=30.0)
        latencies_s.append(time.perf_counter() - began)
        if result != {"value": number}:
            raise BenchFailed(f"mesh: task {number} answered {result!r}")

    async with asyncio.TaskGroup() as group:
        await evenly(rate_per_s, tasks, lambda number: group.create_task(submit(number)))
    return latencies_s
