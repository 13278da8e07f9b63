"""A node inside another Python program: `worker = WorkerNode("http://HOST:8000"); await worker.start()`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from node.config import DEFAULT_MESH, NodeConfig
from node.daemon import Node


class WorkerNode:
    """A node embedded in this process; its tasks run in worker processes all the same.

    `join`: the API of any node (http://…) or a bus server (nats://…); empty: find or create a mesh. `host` and `port`:
    of its own API; port 0 takes any free one. `data`: its data directory; None: a temporary one, so that it is a new
    node each time. The other arguments are the fields of the same name in NodeConfig.
    """

    def __init__(
        self,
        join: str = "",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        data: str | Path | None = None,
        slots: int = 0,
        mesh_name: str = DEFAULT_MESH,
        interface: str = "",
        labels: Mapping[str, str] | None = None,
        region: str = "",
        at: str = "",
        preset: str = "lan",
        bus_port: int = 0,
        measure_after_s: int = 10,
        models: Sequence[str] = (),
        web_targets: Sequence[str] = (),
        open_api: bool = False,
        fault_kinds: bool = False,
    ) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="queztl-") if data is None else None
        self.config = NodeConfig(
            data=Path(self._temporary.name if self._temporary else str(data)), join=(join,) if join else (),
            api_host=host, api_port=port, slots=slots, mesh_name=mesh_name, interface=interface,
            labels=dict(labels or {}), region=region, at=at, preset=preset, bus_port=bus_port,
            measure_after_s=measure_after_s, models=tuple(models), web_targets=tuple(web_targets),
            open_api=open_api, fault_kinds=fault_kinds,
        )  # fmt: skip
        self._node: Node | None = None

    @property
    def node(self) -> Node:
        """The running node. Raises: RuntimeError before `start`."""
        if self._node is None:
            raise RuntimeError("start the node first: await worker.start()")
        return self._node

    @property
    def id(self) -> str:
        """The id of this node."""
        return self.node.context.node_id

    @property
    def api(self) -> str:
        """http://host:port of its REST bridge."""
        return self.node.bridge.url

    async def start(self) -> None:
        """Join the mesh and begin to work. Raises: CannotStart."""
        node = Node(self.config)
        try:
            await node.start()
        except BaseException:
            self._remove_temporary()
            raise
        self._node = node
        self._following = asyncio.create_task(self._follow_merges(node), name="follow merges")

    async def _follow_merges(self, node: Node) -> None:
        """Start the node again in the other mesh when its mesh merges into that one."""
        while True:
            await node.shutdown.requested.wait()
            if node.shutdown.refusal and self._node is node:
                # Another process goes on as this node; the log says which, and what to do.
                self._node = None
                await node.stop()
                return
            if node.shutdown.merge_order is None or self._node is not node:
                return
            await node.stop()
            self.config = replace(self.config, join=())
            node = self._node = Node(self.config)
            await node.start()

    async def stop(self, drain_s: float = 30.0) -> None:
        """Let running tasks end, for `drain_s` seconds at most, then leave the mesh."""
        if self._node is not None:
            node, self._node = self._node, None
            await node.stop(drain_s)
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()

    async def __aenter__(self) -> WorkerNode:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
