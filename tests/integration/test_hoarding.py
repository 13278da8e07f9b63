"""Work that turns out long does not stay with the node that took it for short work, while another one is idle."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from tests.nodes import Cluster

TASKS, SLEEP_S = 60, 0.4


async def test_long_tasks_taken_for_short_ones_are_shared(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        await cluster.start(1, 1)
        mesh = await cluster.client()
        # Both nodes learn that an echo takes next to nothing.
        async for item in mesh.map("echo", ({"value": value} for value in range(3000)), ordered=False):
            assert item.ok
        began = time.monotonic()
        ends, ran_s = Counter[str](), 0.0
        payloads = ({"value": value, "sleep_s": SLEEP_S} for value in range(TASKS))
        async for item in mesh.map("echo", payloads, ordered=False):
            assert item.ok
            end = await mesh.end(item.task)
            ends[end.node] += 1
            ran_s += end.ended_at - end.started_at
        # By what they took here: a busy machine makes them longer, and that is not what is asked.
        took_s, ideal_s = time.monotonic() - began, ran_s / 2
        print(f"{TASKS} tasks of {SLEEP_S} s on two nodes: {dict(ends)}, {took_s:.1f} s, {ideal_s:.0f} s at best")
        cluster.print_logs()
        # One that keeps all it took for short work is left with 43 of them. (The other one may be slow to begin.)
        assert len(ends) == 2 and min(ends.values()) >= TASKS * 0.3
