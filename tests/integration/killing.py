"""kill -9 of a node that has a task in its hands, for tests of what goes on elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from mesh.client import Mesh
from tests.nodes import NodeProcess


async def kill_one_at_work(
    mesh: Mesh, nodes: Sequence[NodeProcess], tasks: Callable[[], Awaitable[Iterable[str]]]
) -> tuple[NodeProcess, str]:
    """Kill one of `nodes` while it runs one of `tasks()`; the node, and the task that was running on it."""
    while True:
        for task in sorted(await tasks()):
            view = await mesh.status(task)
            node = next((one for one in nodes if view.state == "running" and view.node == one.id), None)
            if node is None:
                continue
            # Frozen first, so that it can't end the task between the look and the kill.
            node.freeze()
            if (await mesh.status(task)).state == "running":
                await node.kill9()
                return node, task
            node.thaw()
        await asyncio.sleep(0.02)  # a running state is told by the node after a tenth of a second
