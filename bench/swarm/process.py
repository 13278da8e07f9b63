"""One process of a swarm, `python -m bench.swarm.process`: executes orders in lines of JSON, and answers likewise.

It ends with its parent: when its stdin closes, and on Linux by a signal of the kernel when the parent is killed, as a
stopped process would otherwise stay behind.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.swarm.figures import Report
from bench.swarm.node import SwarmNode
from mesh.errors import QueztlError
from mesh.messages import Capabilities, KindInfo
from node.config import NodeConfig
from node.probes.machine import probe_machine

_PR_SET_PDEATHSIG, _SIGKILL = 1, 9
#: How often a node tries to join the mesh.
STARTS = 5


class Process:
    """The nodes of this process."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """`spec`: folder, urls, mesh, slots, wrong_every (falsify every n-th result; 0: none)."""
        self._folder, self._spec = Path(spec["folder"]), spec
        self._nodes: list[SwarmNode] = []
        self._tasks = 0
        self._notice = asyncio.Event()
        self._changed: set[SwarmNode] = set()
        machine = probe_machine(self._folder)
        self._probed = Capabilities(
            os=machine.os, arch=machine.arch, cpu_model=machine.cpu_model, cpu_features=machine.cpu_features,
            cores=machine.cores, cores_physical=machine.cores_physical, memory_bytes=machine.memory_bytes,
            disk_free_bytes=machine.disk_free_bytes, kinds=(KindInfo("echo", True),),
        )  # fmt: skip

    def _is_wrong(self) -> bool:
        every = self._spec["wrong_every"]
        self._tasks += 1
        return bool(every) and self._tasks % every == 0

    # --- orders -------------------------------------------------------------------------------------
    async def join(self, count: int) -> dict[str, Any]:
        """Start `count` more nodes at the same time; returns when each record was sent, and when all had joined."""
        began = time.monotonic()
        first = len(self._nodes)
        self._restarts = 0
        nodes = await asyncio.gather(*(self._start(first + number) for number in range(count)))
        self._nodes += nodes
        recorded = {node.context.node_id: node.recorded_at for node in nodes}
        if first == 0:
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 50, 50)
        return {"recorded": recorded, "began": began, "at": time.monotonic(), "again": self._restarts}

    async def _start(self, number: int) -> SwarmNode:
        """Start a node; one that fails to join (an overloaded bus does not answer) is started again."""
        for attempt in range(1, STARTS + 1):
            node = self._make(number)
            try:
                await node.start()
                return node
            except QueztlError:
                if attempt == STARTS:
                    raise
                self._restarts += 1
                # Spread the new attempts over time.
                await asyncio.sleep(random.random() * attempt)
        raise AssertionError("the last attempt returned or raised")

    def _make(self, number: int) -> SwarmNode:
        config = NodeConfig(
            mesh_name=self._spec["mesh"], interface="lo", data=self._folder / f"n{number}",
            join=tuple(self._spec["urls"]), slots=self._spec["slots"], measure_after_s=0,
        )  # fmt: skip
        node = SwarmNode(config, self._probed, self._is_wrong)
        node.on_changed = lambda: self._on_changed(node)
        return node

    async def until_up(self, ids: list[str], within_s: float) -> dict[str, Any]:
        """Wait until every node here considers all of `ids` up."""
        nodes = set(ids)
        return await self._until(lambda node: nodes <= node.up, within_s)

    async def until_gone(self, ids: list[str], within_s: float) -> dict[str, Any]:
        """Wait until every node here considers all of `ids` gone."""
        nodes = set(ids)
        return await self._until(lambda node: nodes <= node.gone_at.keys(), within_s)

    async def until_ranked(self, ids: list[str], within_s: float) -> dict[str, Any]:
        """Wait until every node here has read a plan with all of `ids` in it."""
        nodes = set(ids)
        found = await self._until(lambda node: nodes <= node.ranked_at.keys(), within_s)
        # When the plan arrived, not when this order did.
        ranked_at = [node.ranked_at[each] for node in self._nodes for each in nodes if each in node.ranked_at]
        return found | {"at": max(ranked_at, default=found["at"])}

    async def until_unranked(self, ids: list[str], within_s: float) -> dict[str, Any]:
        """Wait until every node here has read a plan with none of `ids` in it."""
        nodes = set(ids)
        found = await self._until(lambda node: not nodes & node.ranked_at.keys(), within_s)
        unranked_at = [node.unranked_at[each] for node in self._nodes for each in nodes if each in node.unranked_at]
        return found | {"at": max(unranked_at, default=found["at"])}

    async def _until(self, condition: Callable[[SwarmNode], bool], within_s: float) -> dict[str, Any]:
        """`at`: when the condition became true for the last node; `missing`: for how many it never did."""
        at = time.monotonic()
        deadline, pending = at + within_s, set(self._nodes)
        self._changed = set(self._nodes)
        while pending and (left_s := deadline - time.monotonic()) > 0:
            self._notice.clear()
            # Only nodes with a change are checked: each of hundreds of nodes has hundreds of changes.
            changed, self._changed = self._changed & pending, set()
            if fulfilled := {node for node in changed if condition(node)}:
                pending, at = pending - fulfilled, time.monotonic()
            if pending:
                try:
                    async with asyncio.timeout(left_s):
                        await self._notice.wait()
                except TimeoutError:
                    pass
        return {"at": at, "missing": len(pending)}

    def _on_changed(self, node: SwarmNode) -> None:
        self._changed.add(node)
        self._notice.set()

    async def until_holding(self, within_s: float) -> dict[str, Any]:
        """Wait until every node here holds tasks; returns how many they hold."""
        await self._until(lambda node: len(node.deliveries) > 0, within_s)
        return {"tasks": sum(len(node.deliveries) for node in self._nodes)}

    async def forget(self) -> dict[str, Any]:
        """Begin new logs. Run times are forgotten too, as each scene has tasks of its own length."""
        for node in self._nodes:
            node.forget()
            node.executor.rates.clear()
        return {}

    async def report(self) -> dict[str, Any]:
        """The logs of the nodes here, as one Report."""
        logs = [(node.gone_at, node.suspected) for node in self._nodes]
        done = {node.context.node_id: node.completion.done for node in self._nodes}
        return Report.of(logs, done).as_json()


async def serve() -> None:
    """Execute the orders on stdin until it closes."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    process = Process(json.loads(await reader.readline()))
    answer({"ready": True})
    while line := await reader.readline():
        order: dict[str, Any] = json.loads(line)
        try:
            answer(await getattr(process, order.pop("do"))(**order))
        except QueztlError as error:
            answer({"failed": error.message})


def answer(document: dict[str, Any]) -> None:
    """Write one line to the parent."""
    print(json.dumps(document), flush=True)


def main() -> None:
    """Serve the parent; end at once, without leaving the mesh, when the parent is gone."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    try:
        import uvloop

        uvloop.run(serve())
    except ImportError:
        asyncio.run(serve())


if __name__ == "__main__":
    main()
