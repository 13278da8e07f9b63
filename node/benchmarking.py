"""Runs the benchmark suite for whoever asks this node: as a program of its own, whose progress the mesh can read.

The suite knows the mesh, the mesh does not know the suite: it is started as `python -m bench run … --events` and
submits ordinary tasks to the nodes it measures. One run at a time: two would measure each other.
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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mesh import benchmarks
from mesh.benchmarks import BenchRun
from mesh.discovery.identity import new_token
from mesh.errors import Conflict, QueztlError
from node.executor.process import code_folder

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)

#: Progress is written into the mesh at most this often.
TELL_EVERY_S = 0.5
#: A run that was told to stop has this long to end the task it has under way.
STOP_WITHIN_S = 10.0
SAID_CHARS = 500


class Benchmarking:
    """`await start(…)` answers at once; `await close()` ends what is under way."""

    def __init__(self, bus: Bus, node: str, folder: Path) -> None:
        self._bus, self._node, self._folder = bus, node, folder
        self._run: BenchRun | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._following: asyncio.Task[None] | None = None
        self._cancelled = False

    async def start(self, urls: Sequence[str], names: Sequence[str], nodes: Sequence[str], quick: bool) -> BenchRun:
        """Begin a run of `names` on `nodes` (ids). Raises: Conflict while one is under way here; BusUnavailable."""
        if self._run is not None and self._run.under_way:
            raise Conflict(f"benchmark run {self._run.id} is under way on this node; cancel it or wait for its end")
        run = BenchRun(
            id=new_token("r"), names=tuple(names), nodes=tuple(nodes), quick=quick, runner=self._node,
            began_at=time.time(), total=len(names) * len(nodes),
        )  # fmt: skip
        self._run, self._cancelled = run, False
        try:
            await benchmarks.put_run(self._bus, run)
            self._process = await self._launch(urls, run)
        except (QueztlError, OSError):
            self._run = None
            raise
        self._following = asyncio.create_task(self._follow(self._process), name=f"benchmark run {run.id}")
        return run

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
        """Where a run of any node is. Raises: NotFound, BusUnavailable."""
        if self._run is not None and self._run.id == run:
            return self._run
        return await benchmarks.read_run(self._bus, run)

    async def close(self) -> None:
        """End what is under way."""
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
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
        if self._following is not None:
            await self._following

    async def _launch(self, urls: Sequence[str], run: BenchRun) -> asyncio.subprocess.Process:
        words = [*run.names, "--mesh", ",".join(urls), "--events", "--out", str(self._folder / "bench")]
        for node in run.nodes:
            words += ["--node", node]
        if run.quick:
            words.append("--quick")
        return await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "bench", "run", *words,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            cwd=self._folder, env=os.environ | {"PYTHONPATH": str(code_folder())}, start_new_session=True,
        )  # fmt: skip

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        """Until it ends: its progress into the mesh, then how it ended."""
        assert process.stdout is not None and process.stderr is not None
        said = asyncio.create_task(process.stderr.read(), name="what the suite says")
        told_at = 0.0
        async for line in process.stdout:
            self._take(line)
            now = time.monotonic()
            if now - told_at >= TELL_EVERY_S:
                told_at = now
                await self._put()
        code, words = await process.wait(), (await said).decode(errors="replace").strip()
        assert self._run is not None
        # 1: some benchmark has no figures, and its outcome says why. The run as such is done.
        done = code in (0, 1) and self._run.done == self._run.total
        state = "cancelled" if self._cancelled else "done" if done else "failed"
        reason = "" if state != "failed" else words[-SAID_CHARS:] or f"it ended with exit code {code}"
        self._run = msgspec.structs.replace(self._run, state=state, reason=reason, ended_at=time.time())
        await self._put()

    def _take(self, line: bytes) -> None:
        """One line of progress."""
        try:
            told = json.loads(line)
            fields = {name: told[name] for name in ("total", "done", "benchmark", "node", "repetition", "last")}
        except (ValueError, KeyError, TypeError):
            log.warning("the suite said something that is no progress: %s", line[:200])
            return
        self._run = msgspec.structs.replace(self._run, state="running", **fields)

    async def _put(self) -> None:
        assert self._run is not None
        try:
            await benchmarks.put_run(self._bus, self._run)
        except QueztlError as error:
            log.info("where benchmark run %s is could not be written just now: %s", self._run.id, error.message)
