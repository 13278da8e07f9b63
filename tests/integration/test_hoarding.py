"""A node that prefetched long tasks as short ones returns them while another node is idle."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.nodes import Cluster

TASKS, SLEEP_S = 60, 0.4


async def test_long_tasks_taken_for_short_ones_are_shared(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        await cluster.start(1, 1)
        mesh = await cluster.client()
        # Both nodes learn that an echo is short.
        async for item in mesh.map("echo", ({"value": value} for value in range(3000)), ordered=False):
            assert item.ok
        ends = Counter[str]()
        payloads = ({"value": value, "sleep_s": SLEEP_S} for value in range(TASKS))
        async for item in mesh.map("echo", payloads, ordered=False):
            assert item.ok
            ends[(await mesh.end(item.task)).node] += 1
        cluster.print_logs()
        # A node that keeps all its prefetched work would end with 43 tasks. (The other node may start late.)
        assert len(ends) == 2 and min(ends.values()) >= TASKS * 0.3, ends
