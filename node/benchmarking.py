"""Runs the benchmark suite on request, as a separate program, and publishes its progress in the mesh.

The suite depends on the mesh, not the other way round: the node starts `python -m bench run … --events`, which submits
ordinary tasks to the nodes it measures. A node runs one suite at a time: two would distort each other's figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mesh import benchmarks, child_process, data_folder
from mesh.benchmarks import BenchRun
from mesh.bus.client import Bus
from mesh.discovery.identity import new_token
from mesh.errors import BadInput, Conflict, Fault, QueztlError
from mesh.views import NodeView
from node.executor.process import code_folder

log = logging.getLogger(__name__)

#: The progress of a run is published at most this often, seconds.
PUBLISH_EVERY_S = 0.5
#: A cancelled run may take this long to end its current task before it is killed, seconds.
STOP_WITHIN_S = 10.0
#: The reason of a failed run is the end of what it wrote to stderr, characters.
REASON_CHARS = 500
_NOT_MEASURABLE = ("gone", "left", "registered")


class Benchmarking:
    """The benchmark runs that this node drives. `close()` ends the one under way."""

    def __init__(
        self,
        bus: Bus,
        node: str,
        folder: Path,
        *,
        nodes: Callable[[], Sequence[NodeView]],
        urls: Callable[[], Sequence[str]],
    ) -> None:
        """`node`: this node's id; `nodes()`: every node of the mesh; `urls()`: the client URLs of the bus."""
        self._bus, self._node, self._folder = bus, node, folder
        self._nodes, self._urls = nodes, urls
        self._run: BenchRun | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._following: asyncio.Task[None] | None = None
        self._cancelled = False

    async def latest(self) -> dict[str, list[dict[str, Any]]]:
        """benchmark -> the latest outcome of each node, the newest first. Raises: BusUnavailable."""
        return await benchmarks.latest(self._bus)

    async def start(self, names: Sequence[str], nodes: Sequence[str] | None, quick: bool) -> BenchRun:
        """Start a run of the benchmarks `names` on `nodes`: ids or names; None: this node; empty: all nodes.

        Raises: BadInput for an unknown node; Conflict while a run is under way on this node; BusUnavailable.
        """
        chosen = self._chosen(nodes)
        if self._run is not None and self._run.under_way:
            raise Conflict(f"benchmark run {self._run.id} is under way on this node; cancel it or wait for its end")
        run = BenchRun(
            id=new_token("r"), names=tuple(names), nodes=tuple(chosen), quick=quick, runner=self._node,
            began_at=time.time(), total=len(names) * len(chosen),
        )  # fmt: skip
        self._run, self._cancelled = run, False
        try:
            await benchmarks.put_run(self._bus, run)
            process = self._process = await self._launch(run)
        except (QueztlError, OSError):
            self._run = None
            raise
        self._following = asyncio.create_task(self._follow(process, run), name=f"benchmark run {run.id}")
        return run

    def _chosen(self, nodes: Sequence[str] | None) -> list[str]:
        """The ids of the nodes to measure. Raises: BadInput."""
        if nodes is None:
            return [self._node]
        present = [view for view in self._nodes() if view.state not in _NOT_MEASURABLE]
        if not nodes:
            return [view.id for view in present]
        chosen: list[str] = []
        for requested in nodes:
            found = [view.id for view in present if requested in (view.id, view.name)]
            if len(found) != 1:
                problem = f"names {requested!r}, which is {'several nodes' if found else 'no node'} of this mesh"
                raise BadInput(f"The benchmark run is not valid: nodes {problem}.", (Fault("nodes", problem),))
            chosen += found
        return chosen

    async def cancel(self, run: str) -> BenchRun:
        """Stop a run of this node; one that has ended stays as it is. Raises: NotFound, Conflict, BusUnavailable."""
        known = await self.status(run)
        if not known.under_way:
            return known
        if self._run is None or self._run.id != run:
            raise Conflict(f"benchmark run {run} is driven by node {known.runner}; cancel it there")
        await self._stop()
        return self._run

    async def status(self, run: str) -> BenchRun:
        """The progress of a run of any node. Raises: NotFound, BusUnavailable."""
        if self._run is not None and self._run.id == run:
            return self._run
        return await benchmarks.read_run(self._bus, run)

    async def close(self) -> None:
        """Stop the run under way, if there is one."""
        if self._run is not None and self._run.under_way:
            await self._stop()

    async def _stop(self) -> None:
        self._cancelled = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGINT)
            try:
                async with asyncio.timeout(STOP_WITHIN_S):
                    await self._process.wait()
            except TimeoutError:
                child_process.kill(self._process)
        if self._following is not None:
            await self._following

    async def _launch(self, run: BenchRun) -> asyncio.subprocess.Process:
        arguments = [
            *run.names,
            "--mesh",
            ",".join(self._urls()),
            "--events",
            "--out",
            str(self._folder / data_folder.BENCHMARKS),
        ]
        for node in run.nodes:
            arguments += ["--node", node]
        if run.quick:
            arguments.append("--quick")
        return await child_process.start(
            sys.executable, "-P", "-m", "bench", "run", *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=self._folder, env=os.environ | {"PYTHONPATH": str(code_folder())},
        )  # fmt: skip

    async def _follow(self, process: asyncio.subprocess.Process, run: BenchRun) -> None:
        """Publish the progress of the suite until it ends, then how it ended."""
        assert process.stdout is not None and process.stderr is not None
        reading = asyncio.create_task(process.stderr.read(), name="stderr of the benchmark suite")
        published_at = 0.0
        async for line in process.stdout:
            run = self._run = with_progress(run, line)
            now = time.monotonic()
            if now - published_at >= PUBLISH_EVERY_S:
                published_at = now
                await self._publish(run)
        code, errors = await process.wait(), (await reading).decode(errors="replace").strip()
        # Exit code 1: a benchmark has no figures, and its outcome says why. The run itself is done.
        done = code in (0, 1) and run.done == run.total
        state = "cancelled" if self._cancelled else "done" if done else "failed"
        reason = "" if state != "failed" else errors[-REASON_CHARS:] or f"it ended with exit code {code}"
        run = self._run = msgspec.structs.replace(run, state=state, reason=reason, ended_at=time.time())
        await self._publish(run)

    async def _publish(self, run: BenchRun) -> None:
        try:
            await benchmarks.put_run(self._bus, run)
        except QueztlError as error:
            log.info("could not save the progress of benchmark run %s: %s", run.id, error.message)


def with_progress(run: BenchRun, line: bytes) -> BenchRun:
    """The run after one line of the suite's output; a line that is no progress event changes nothing."""
    try:
        event = json.loads(line)
        fields = {name: event[name] for name in ("total", "done", "benchmark", "node", "repetition", "last")}
    except (ValueError, KeyError, TypeError):
        log.warning("ignoring a line of the benchmark suite that is no progress event: %s", line[:200])
        return run
    return msgspec.structs.replace(run, state="running", **fields)
