"""A node inside somebody else's program: `worker = WorkerNode("http://HOST:8000"); await worker.start()`."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from node.config import NodeConfig
from node.daemon import Node


class WorkerNode:
    """A node embedded in this process; its workers are processes of their own all the same.

    `join`: any node's API (http://…) or a bus server (nats://…); empty: find or found a mesh as usual.
    `port`: of its own API; 0 takes any free one. `data`: where it keeps its identity; None: a temporary
    directory, so that it is a new node each time. `options`: any further field of NodeConfig.
    """

    def __init__(
        self,
        join: str = "",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        data: str | Path | None = None,
        slots: int = 0,
        **options: Any,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="queztl-") if data is None else None
        folder = Path(self._temporary.name if self._temporary else str(data))
        config = NodeConfig(data=folder, api_host=host, api_port=port, slots=slots)
        self.config = replace(config, join=(join,) if join else (), **options)
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        """The running node. Raises: RuntimeError before `start`."""
        if self._node is None:
            raise RuntimeError("start the node first: await worker.start()")
        return self._node

    @property
    def id(self) -> str:
        """Its node id."""
        return self.node.record.id

    @property
    def api(self) -> str:
        """http://host:port of its bridge."""
        return self.node.bridge.url

    async def start(self) -> None:
        """Join and begin to work. Raises: CannotStart."""
        node = Node(self.config)
        try:
            await node.start()
        except BaseException:
            self._tidy()
            raise
        self._node = node
        self._following = asyncio.create_task(self._follow(node), name="follow the mesh")

    async def _follow(self, node: Node) -> None:
        """A node whose mesh goes into another one is started again there."""
        while True:
            await node.stop_asked.wait()
            if node.moves_to is None or self._node is not node:
                return
            await node.stop()
            self.config = replace(self.config, join=())
            node = self._node = Node(self.config)
            await node.start()

    async def stop(self, drain_s: float = 30.0) -> None:
        """Finish what runs (for `drain_s`), then leave in order."""
        if self._node is not None:
            node, self._node = self._node, None
            await node.stop(drain_s)
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._tidy()

    def _tidy(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    async def __aenter__(self) -> WorkerNode:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
