"""SIGKILL to a node that runs a task, for tests of how the task goes on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from mesh.client import Mesh
from tests.nodes import NodeProcess


async def kill_one_at_work(
    mesh: Mesh, nodes: Sequence[NodeProcess], tasks: Callable[[], Awaitable[Iterable[str]]]
) -> tuple[NodeProcess, str]:
    """Kill one of `nodes` while it runs one of `tasks()`; returns the node and the task that it was running."""
    while True:
        for task in sorted(await tasks()):
            view = await mesh.status(task)
            node = next(
                (candidate for candidate in nodes if view.state == "running" and view.node == candidate.id), None
            )
            if node is None:
                continue
            # Freeze the node first, so that it can't end the task between the check and the kill.
            node.freeze()
            if (await mesh.status(task)).state == "running":
                await node.kill9()
                return node, task
            node.thaw()
        await asyncio.sleep(0.02)  # a node reports the running state after a tenth of a second
