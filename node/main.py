"""From the command to the exit code: start a node, print its banner, serve until a signal, leave the mesh."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from dataclasses import replace

from mesh.bus.wire import check_library
from mesh.errors import BusUnavailable, CannotStart
from node.config import NodeConfig
from node.daemon import Node
from node.probes.descriptors import raise_limit

log = logging.getLogger(__name__)

#: A closed terminal stops a node like the other signals: without a handler it would kill the node.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: What programs that rotate logs send. By default both end a process at once.
IGNORED = (signal.SIGUSR1, signal.SIGUSR2)
#: How long a node tries to start while the bus stops answering, and the pause between two attempts, seconds.
START_WITHIN_S, START_AGAIN_S = 120.0, 1.0


class _Signals:
    """Counts the signals that end a node, and passes the request to stop to the running node."""

    def __init__(self) -> None:
        self.received = 0
        # Separate from the node's own event: a node that fails to start sets that one too, and has an error to report.
        self.first = asyncio.Event()
        self.node: Node | None = None
        for number in STOPPING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def _on_signal(self) -> None:
        self.received += 1
        self.first.set()
        if self.node is not None:
            self.node.shutdown.request()


async def run(config: NodeConfig) -> int:
    """Run a node from start to stop; the exit code. When its mesh merges into another one it is started again there.

    Raises: CannotStart.
    """
    check_library()
    raise_limit()
    signals = _Signals()
    while True:
        node = await _start(config, signals)
        if node is None:
            return 130
        code = await _run(node, signals)
        if node.shutdown.merge_order is None or signals.received:
            return code
        # --join names the ended mesh; the data directory holds the address of the other one.
        config = replace(config, join=())


async def _start(config: NodeConfig, signals: _Signals) -> Node | None:
    """A running node; None when a signal came first. A bus that stops answering during the start is waited for: after a
    power cut its servers are between two states.

    Raises: CannotStart.
    """
    deadline = time.monotonic() + START_WITHIN_S
    interrupted = asyncio.create_task(signals.first.wait(), name="first signal")
    try:
        while True:
            node = signals.node = Node(config)
            starting = asyncio.create_task(node.start(), name="start")
            await asyncio.wait({starting, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return None
            try:
                starting.result()
                return node
            except BusUnavailable as error:
                if time.monotonic() > deadline:
                    raise CannotStart(f"the bus did not serve for {START_WITHIN_S:.0f} s: {error.message}") from None
                log.warning("the node could not start, and tries again: %s", error.message)
            await asyncio.wait({interrupted}, timeout=START_AGAIN_S)
            if interrupted.done():
                return None
    finally:
        interrupted.cancel()


def _say(text: str) -> None:
    """Print to the terminal, which may have been closed."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


async def _run(node: Node, signals: _Signals) -> int:
    # The objects alive now stay alive: scanning them again every few hundred tasks would be a tenth of all CPU time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    _say(node.banner())
    try:
        await node.serve()
    finally:
        await _leave(node, signals)
    return 0


async def _leave(node: Node, signals: _Signals) -> None:
    if node.shutdown.merge_order is not None:
        _say("This mesh merges into another one; this node finishes its tasks and starts again there.")
    elif not node.shutdown.refusal:
        _say("Finishing running tasks, then leaving the mesh (press Ctrl-C again to leave at once).")
    leaving = asyncio.create_task(node.stop(), name="stop")
    while not leaving.done():
        await asyncio.wait({leaving}, timeout=0.1)
        if signals.received > 1:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            await node.abandon()
            raise CannotStart("Left at once; other nodes run the unfinished tasks of this node again.")
    leaving.result()
    if node.shutdown.refusal:
        raise CannotStart(node.shutdown.refusal)
