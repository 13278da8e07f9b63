"""From the command to the exit code: start a node, print who it is, serve until told to stop, leave in order."""

from __future__ import annotations

import asyncio
import gc
import signal

from mesh.errors import CannotStart
from node.config import NodeConfig
from node.daemon import Node
from node.portrait import banner_of


async def run(config: NodeConfig) -> int:
    """A node from start to stop; the exit code. Raises: CannotStart."""
    node = Node(config)
    loop = asyncio.get_running_loop()
    asked = 0
    # Not the node's own event: a node that fails to start sets that too, and then has a reason to tell.
    told_to_stop = asyncio.Event()

    def on_signal() -> None:
        nonlocal asked
        asked += 1
        told_to_stop.set()
        node.stop_asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    starting = asyncio.create_task(node.start(), name="start")
    stopping = asyncio.create_task(told_to_stop.wait(), name="told to stop")
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
        print("finishing what runs, then leaving (Ctrl-C again: leave at once)", flush=True)
        leaving = asyncio.create_task(node.stop(), name="stop")
        while not leaving.done():
            await asyncio.wait({leaving}, timeout=0.1)
            if asked > 1:
                leaving.cancel()
                await asyncio.gather(leaving, return_exceptions=True)
                await node.abandon()
                raise CannotStart("left at once: what ran here is given to other nodes")
        leaving.result()
    return 0
