"""The pool of worker processes: starts workers on request, retires idle ones, replaces dead ones.

At least one worker stays ready. A start that fails is repeated with growing delays, and never ends the daemon.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from mesh.errors import CannotStart
from mesh.niceness import lower
from node.executor.dispatch import surplus
from node.executor.limits import NICENESS
from node.executor.process import Guard, OnFrames, Permissions, WorkerProcess

log = logging.getLogger(__name__)

READY_WITHIN_S = 20.0
#: `open` gives up after so many failed starts; later the pool never gives up.
GIVE_UP_AFTER = 3
START_BACKOFF_S = (0.1, 0.5, 2.0, 10.0, 30.0)


class WorkerPool:
    """The worker processes of one executor.

    `on_frames(worker, frames)` gets the frames of one read; `on_worker_gone(worker, culprit, ran_s, how)` a worker that
    has ended, with the jobs it still held; `on_change()` is called when there may be a worker that can take jobs.
    """

    def __init__(
        self,
        folder: Path,
        permissions: Permissions,
        on_frames: OnFrames,
        on_worker_gone: Callable[[WorkerProcess, int, float, str], None],
        on_change: Callable[[], None],
    ) -> None:
        self.workers: list[WorkerProcess] = []
        self.dying: list[WorkerProcess] = []
        self.starting = 0
        self._folder, self._results, self._permissions = folder, folder / "results", permissions
        self._on_frames, self._on_worker_gone, self._on_change = on_frames, on_worker_gone, on_change
        self._background: set[asyncio.Task[None]] = set()
        self._numbers = self._failed_starts = 0
        self._folders = 0
        """How often the folder was made anew."""
        self._start_after = 0.0
        self._guard: Guard | None = None
        self._ready = asyncio.Event()
        self._closing = False

    def all_workers(self) -> tuple[WorkerProcess, ...]:
        """All workers that may hold jobs."""
        return (*self.workers, *self.dying)

    async def open(self) -> None:
        """Clear the folder and wait for one ready worker. Raises: CannotStart."""
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            self._results.mkdir(parents=True, mode=0o700)
            self._guard = Guard()
        except OSError as error:
            raise CannotStart(f"The node can't use its working folder {self._folder}: {error}.") from error
        self._loop = asyncio.get_running_loop()
        self.start(1)
        try:
            await asyncio.wait_for(self._ready.wait(), READY_WITHIN_S)
        except TimeoutError:
            log.error("the first worker process was not ready within %g s", READY_WITHIN_S)
        if not any(worker.ready for worker in self.workers):
            await self.close()
            raise CannotStart("No worker process could be started; the log lines before this one give the reason.")

    async def close(self) -> None:
        """Kill every worker, whatever it holds; returns when all are gone."""
        self._closing = True
        for worker in self.all_workers():
            worker.retired = True
            if not worker.lost:
                worker.kill()
        await asyncio.gather(*self._background)  # a start that is under way adds a worker
        for worker in tuple(self.workers):
            await worker.gone.wait()
        await asyncio.gather(*self._background)
        if self._guard is not None:
            self._guard.close()

    # --- starting and retiring

    def start(self, count: int) -> None:
        """Start `count` workers, unless a start has just failed."""
        if self._closing or self._guard is None or self._loop.time() < self._start_after:
            return
        for _ in range(count):
            self._numbers += 1
            self.starting += 1
            self._spawn(
                self._launch(WorkerProcess(self._numbers, self._folder, self._on_frames, self._on_lost), self._guard)
            )

    def keep_folder(self) -> None:
        """Make the folder anew when somebody has removed it, a program that tidies up for example, and replace the
        workers: each may write in the folder with which it started only."""
        if not os.path.isdir(self._results):
            try:
                self._results.mkdir(parents=True, mode=0o700)
            except OSError as error:
                log.error("the working folder %s was removed and can't be made anew: %s", self._folder, error)
            else:
                log.warning("the working folder %s was removed and is made anew", self._folder)
                self._folders += 1
            for worker in self.workers:
                worker.outdated = True
        for worker in self.workers:
            if worker.outdated and worker.ready and not worker.held and not worker.retired:
                worker.retire()

    def ready(self, worker: WorkerProcess) -> None:
        """`worker` reported that it can take jobs."""
        worker.ready = True
        self.starting -= 1
        self._failed_starts = 0
        self._ready.set()

    def retire_surplus(self, now: float) -> None:
        """End workers that have been idle for long."""
        idle = [worker for worker in self.workers if worker.ready and not worker.held and not worker.retired]
        for index in surplus([now - worker.idle_since for worker in idle], len(self.workers)):
            idle[index].retire()

    async def _launch(self, worker: WorkerProcess, guard: Guard) -> None:
        folders = self._folders
        try:
            await worker.launch(guard, self._results, self._permissions)
        except OSError as error:
            self._start_failed(f"could not start a worker process: {error}")
            return
        worker.outdated = folders != self._folders
        self.workers.append(worker)
        if self._closing:
            worker.retired = True
            worker.kill()
        await lower(worker.pid, NICENESS, lambda: worker.lost)

    def _start_failed(self, why: str) -> None:
        self.starting -= 1
        if self._closing:
            return
        delay_s = START_BACKOFF_S[min(self._failed_starts, len(START_BACKOFF_S) - 1)]
        self._failed_starts += 1
        if self._failed_starts >= GIVE_UP_AFTER:
            self._ready.set()  # ends the wait in `open`
        self._start_after = self._loop.time() + delay_s
        log.error("%s; trying again in %g s", why, delay_s)
        self._loop.call_at(self._start_after, self._replace_last)

    # --- workers that end

    def _on_lost(self, worker: WorkerProcess) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
        self.dying.append(worker)
        self._spawn(self._reap(worker))

    async def _reap(self, worker: WorkerProcess) -> None:
        culprit, ran_s = worker.current(monotonic())
        how = await worker.reap()
        self.dying.remove(worker)
        if not worker.ready:
            self._start_failed(f"a worker process {how} before it was ready")
        elif not worker.retired and not worker.verdict:
            log.warning("worker %d %s", worker.number, how)
        self._on_worker_gone(worker, culprit, ran_s, how)
        self._replace_last()

    def _replace_last(self) -> None:
        if not self.workers and not self.starting:
            self.start(1)
        self._on_change()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def unfinished(workers: Sequence[WorkerProcess]) -> list[Any]:
    """Take all jobs away from `workers`."""
    left = [job for worker in workers for job in worker.held.values()]
    for worker in workers:
        worker.held.clear()
    return left
