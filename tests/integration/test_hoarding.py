"""No node keeps tasks that it can't start now while another node is idle."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import msgspec

from mesh import subjects
from mesh.bus.client import Message
from mesh.client import Mesh, TaskHandle
from mesh.messages import Heartbeat
from tests.nodes import Cluster, NodeProcess

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


async def test_tasks_that_need_all_slots_go_to_the_node_that_has_them(tmp_path: Path) -> None:
    """One slot of the first node is in use for long. It leaves such tasks to the second node, and returns one that it
    took while the second node was busy."""
    async with Cluster(tmp_path) as cluster:
        half_busy, idle = await cluster.start(2, 2)
        mesh = await cluster.client()
        await running(await mesh.start("echo", {"sleep_s": 600}, requires={"node": half_busy.id}), half_busy)
        for value in range(6):
            end = await (await wide(mesh, value, sleep_s=0.1)).end(60)
            assert (end.state, end.node) == ("done", idle.id), value
        first = await wide(mesh, 7, sleep_s=600)
        await running(first, idle)
        second = await wide(mesh, 8, sleep_s=0.1)
        await holding(mesh, half_busy)  # nobody else could start it
        await first.cancel()
        end = await second.end(60)
        cluster.print_logs()
        assert (end.state, end.node) == ("done", idle.id)


async def wide(mesh: Mesh, value: int, sleep_s: float) -> TaskHandle:
    """A task that needs both slots of a node."""
    return await mesh.start("echo", {"value": value, "sleep_s": sleep_s}, requires={"cores": 2})


async def holding(mesh: Mesh, node: NodeProcess) -> None:
    """Wait until `node` reports a task that it took and has not started."""
    held = asyncio.Event()

    def on_heartbeat(message: Message) -> None:
        if msgspec.msgpack.decode(message.data, type=Heartbeat).queued:
            held.set()

    subscription = await mesh.bus.subscribe(subjects.heartbeat(node.id), on_heartbeat)
    await asyncio.wait_for(held.wait(), 60)
    await subscription.close()


async def running(task: TaskHandle, node: NodeProcess) -> None:
    """Wait until `node` runs the task."""
    async for view in task.mesh.watch(task.id):
        if view.state == "running":
            assert view.node == node.id
            return
