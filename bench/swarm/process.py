"""One process of a swarm, `python -m bench.swarm.process`: told what to do in lines of JSON, and answering so.

It ends with its parent: when its stdin closes, and (Linux) by the kernel's hand when the parent was killed, or it
would stay behind stopped.
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
#: A node tries so often to get into the mesh.
STARTS = 5


class Process:
    """The nodes of this process."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """`spec`: folder, urls, mesh, slots, wrong_every (0: never)."""
        self._folder, self._spec = Path(spec["folder"]), spec
        self._nodes: list[SwarmNode] = []
        self._tasks = 0
        self._news = asyncio.Event()
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

    # --- what it can be told ------------------------------------------------------------------------
    async def join(self, count: int) -> dict[str, Any]:
        """Start `count` more nodes, all at once; when each one's record was sent, and when all were in."""
        began = time.monotonic()
        first = len(self._nodes)
        self._again = 0
        nodes = await asyncio.gather(*(self._start(first + number) for number in range(count)))
        self._nodes += nodes
        recorded = {node.context.node_id: node.recorded_at for node in nodes}
        if first == 0:
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 50, 50)
        return {"recorded": recorded, "began": began, "at": time.monotonic(), "again": self._again}

    async def _start(self, number: int) -> SwarmNode:
        """A node that gives up (a bus that is out of breath does not answer) is started again, as a service is."""
        for attempt in range(1, STARTS + 1):
            node = self._make(number)
            try:
                await node.start()
                return node
            except QueztlError:
                if attempt == STARTS:
                    raise
                self._again += 1
                # Not all of them at the same moment again.
                await asyncio.sleep(random.random() * attempt)
        raise AssertionError("the last attempt returned or raised")

    def _make(self, number: int) -> SwarmNode:
        config = NodeConfig(
            mesh_name=self._spec["mesh"], interface="lo", data=self._folder / f"n{number}",
            join=tuple(self._spec["urls"]), slots=self._spec["slots"], measure_after_s=0,
        )  # fmt: skip
        node = SwarmNode(config, self._probed, self._is_wrong)
        node.on_news = lambda: self._heard(node)
        return node

    async def until_up(self, ids: list[str], within_s: float) -> dict[str, Any]:
        """Wait until every node here holds all of `ids` for up."""
        wanted = set(ids)
        return await self._until(lambda node: wanted <= node.up, within_s)

    async def until_gone(self, ids: list[str], within_s: float) -> dict[str, Any]:
        """Wait until every node here holds all of `ids` for gone."""
        wanted = set(ids)
        return await self._until(lambda node: wanted <= node.gone_at.keys(), within_s)

    async def until_ranked(self, ids: list[str], within_s: float) -> dict[str, Any]:
        """Wait until every node here has read a plan with all of `ids` in it."""
        wanted = set(ids)
        found = await self._until(lambda node: wanted <= node.ranked_at.keys(), within_s)
        # When the plan came, not when this was asked.
        came = [node.ranked_at[one] for node in self._nodes for one in wanted if one in node.ranked_at]
        return found | {"at": max(came, default=found["at"])}

    async def until_unranked(self, ids: list[str], within_s: float) -> dict[str, Any]:
        """Wait until every node here has read a plan with none of `ids` in it."""
        wanted = set(ids)
        found = await self._until(lambda node: not wanted & node.ranked_at.keys(), within_s)
        went = [node.unranked_at[one] for node in self._nodes for one in wanted if one in node.unranked_at]
        return found | {"at": max(went, default=found["at"])}

    async def _until(self, holds: Callable[[SwarmNode], bool], within_s: float) -> dict[str, Any]:
        """When the last node's answer was yes; `missing`: how many never said so."""
        at = time.monotonic()
        deadline, lacking = at + within_s, set(self._nodes)
        self._changed = set(self._nodes)
        while lacking and (left_s := deadline - time.monotonic()) > 0:
            self._news.clear()
            # Only those that heard something are asked: each of hundreds of nodes hears of hundreds.
            changed, self._changed = self._changed & lacking, set()
            if there := {node for node in changed if holds(node)}:
                lacking, at = lacking - there, time.monotonic()
            if lacking:
                try:
                    async with asyncio.timeout(left_s):
                        await self._news.wait()
                except TimeoutError:
                    pass
        return {"at": at, "missing": len(lacking)}

    def _heard(self, node: SwarmNode) -> None:
        self._changed.add(node)
        self._news.set()

    async def until_holding(self, within_s: float) -> dict[str, Any]:
        """Wait until every node here holds work; how much they hold."""
        await self._until(lambda node: len(node.deliveries) > 0, within_s)
        return {"tasks": sum(len(node.deliveries) for node in self._nodes)}

    async def forget(self) -> dict[str, Any]:
        """Begin new logs; how long tasks take is forgotten, too: each scene has tasks of its own length."""
        for node in self._nodes:
            node.forget()
            node.executor.rates.clear()
        return {}

    async def report(self) -> dict[str, Any]:
        """What the nodes here have written down, as one Report."""
        logs = [(node.gone_at, node.suspected) for node in self._nodes]
        done = {node.context.node_id: node.completion.done for node in self._nodes}
        return Report.of(logs, done).as_json()


async def serve() -> None:
    """Do what comes on stdin until it closes."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    process = Process(json.loads(await reader.readline()))
    answer({"ready": True})
    while line := await reader.readline():
        order = json.loads(line)
        try:
            answer(await getattr(process, order.pop("do"))(**order))
        except QueztlError as error:
            answer({"failed": error.message})


def answer(document: dict[str, Any]) -> None:
    """One line to the parent."""
    print(json.dumps(document), flush=True)


def main() -> None:
    """Serve, and go at once when there is nobody to serve: a swarm says no goodbye."""
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
