"""From the command to the exit code: start a node, print who it is, serve until told to stop, leave in order."""

from __future__ import annotations

import asyncio
import gc
import signal
from dataclasses import replace

from mesh.errors import CannotStart
from node.config import NodeConfig
from node.daemon import Node
from node.identity.record import banner_of


class _Signals:
    """Ctrl-C and SIGTERM: how often, and whom they stop."""

    def __init__(self) -> None:
        self.asked = 0
        # Not the node's own event: a node that fails to start sets that too, and then has a reason to tell.
        self.told_to_stop = asyncio.Event()
        self.node: Node | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        self.asked += 1
        self.told_to_stop.set()
        if self.node is not None:
            self.node.stop_asked.set()


async def run(config: NodeConfig) -> int:
    """A node from start to stop; the exit code. A node whose mesh goes into another one is started again there.

    Raises: CannotStart.
    """
    signals = _Signals()
    while True:
        node = signals.node = Node(config)
        code = await _run(node, signals)
        if node.moves_to is None or signals.asked:
            return code
        # Where it was told to join is a mesh that is no more; the new one is remembered in its folder.
        config = replace(config, join=())


async def _run(node: Node, signals: _Signals) -> int:
    starting = asyncio.create_task(node.start(), name="start")
    stopping = asyncio.create_task(signals.told_to_stop.wait(), name="told to stop")
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 130
    stopping.cancel()
    starting.result()
    # What is alive now stays: looking through it again for every few hundred tasks is a tenth of the work.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    print(banner_of(node), flush=True)
    try:
        await node.serve()
    finally:
        await _leave(node, signals)
    return 0


async def _leave(node: Node, signals: _Signals) -> None:
    if node.moves_to is not None:
        print("this mesh goes into another one, and this node with it", flush=True)
    else:
        print("finishing what runs, then leaving (Ctrl-C again: leave at once)", flush=True)
    leaving = asyncio.create_task(node.stop(), name="stop")
    while not leaving.done():
        await asyncio.wait({leaving}, timeout=0.1)
        if signals.asked > 1:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            await node.abandon()
            raise CannotStart("left at once: what ran here is given to other nodes")
    leaving.result()
