"""Keeps the worker processes: starts them when asked, retires idle ones, buries the dead.

At least one stays warm. Starting that fails is tried again ever more slowly, and never takes the daemon down.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from mesh.errors import CannotStart
from node.executor.dispatch import surplus
from node.executor.process import Allowed, Guard, Hear, WorkerProcess

log = logging.getLogger(__name__)

READY_WITHIN_S = 20.0
#: `open` gives up after so many starts that failed; later on nothing gives up.
GIVE_UP_AFTER = 3
START_BACKOFF_S = (0.1, 0.5, 2.0, 10.0, 30.0)


class WorkerPool:
    """The worker processes of one executor.

    `hear(worker, frames)` gets all that one read brought; `buried(worker, ran_s, how)` is told of a worker that is
    gone for good, with what it still held; `changed()` when there may be a new one to hand work to.
    """

    def __init__(
        self,
        folder: Path,
        allowed: Allowed,
        hear: Hear,
        buried: Callable[[WorkerProcess, int, float, str], None],
        changed: Callable[[], None],
    ) -> None:
        self.workers: list[WorkerProcess] = []
        self.dying: list[WorkerProcess] = []
        self.starting = 0
        self._folder, self._results, self._allowed = folder, folder / "results", allowed
        self._hear, self._buried, self._changed = hear, buried, changed
        self._background: set[asyncio.Task[None]] = set()
        self._numbers = self._failed_starts = 0
        self._start_after = 0.0
        self._ready = asyncio.Event()
        self._closing = False

    def everyone(self) -> tuple[WorkerProcess, ...]:
        """All that hold, or may hold, jobs."""
        return (*self.workers, *self.dying)

    async def open(self) -> None:
        """Clears the folder and waits for one worker. Raises: CannotStart."""
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
            raise CannotStart("No worker process could be started; the lines before this one say why.")

    async def close(self) -> None:
        """Kills every worker, whatever it holds; returns when all are gone."""
        self._closing = True
        for worker in self.everyone():
            worker.retired = True
            if not worker.lost:
                worker.kill()
        await asyncio.gather(*self._background)  # starts under way add workers
        for worker in tuple(self.workers):
            await worker.gone.wait()
        await asyncio.gather(*self._background)
        self._guard.close()

    # --- more and fewer

    def start(self, count: int) -> None:
        """Starts `count` workers, unless starting failed only just now."""
        if self._closing or self._loop.time() < self._start_after:
            return
        for _ in range(count):
            self._numbers += 1
            self.starting += 1
            self._spawn(self._launch(WorkerProcess(self._numbers, self._folder, self._hear, self._lose)))

    def ready(self, worker: WorkerProcess) -> None:
        """`worker` said that it can take work."""
        worker.ready = True
        self.starting -= 1
        self._failed_starts = 0
        self._ready.set()

    def retire_surplus(self, now: float) -> None:
        """Lets workers end that nobody has needed for a while."""
        idle = [worker for worker in self.workers if worker.ready and not worker.held and not worker.retired]
        for index in surplus([now - worker.idle_since for worker in idle], len(self.workers)):
            idle[index].retire()

    async def _launch(self, worker: WorkerProcess) -> None:
        try:
            await worker.launch(self._guard, self._results, self._allowed)
        except OSError as error:
            self._start_failed(f"a worker process could not be started: {error}")
            return
        self.workers.append(worker)
        if self._closing:
            worker.retired = True
            worker.kill()

    def _start_failed(self, why: str) -> None:
        self.starting -= 1
        if self._closing:
            return
        delay_s = START_BACKOFF_S[min(self._failed_starts, len(START_BACKOFF_S) - 1)]
        self._failed_starts += 1
        if self._failed_starts >= GIVE_UP_AFTER:
            self._ready.set()  # `open` waits no longer
        self._start_after = self._loop.time() + delay_s
        log.error("%s; trying again in %g s", why, delay_s)
        self._loop.call_at(self._start_after, self._after_loss)

    # --- losing one

    def _lose(self, worker: WorkerProcess) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
        self.dying.append(worker)
        self._spawn(self._bury(worker))

    async def _bury(self, worker: WorkerProcess) -> None:
        culprit, ran_s = worker.current(monotonic())
        how = await worker.bury()
        self.dying.remove(worker)
        if not worker.ready:
            self._start_failed(f"a worker process {how} before it was ready")
        elif not worker.retired and not worker.verdict:
            log.warning("worker %d %s", worker.number, how)
        self._buried(worker, culprit, ran_s, how)
        self._after_loss()

    def _after_loss(self) -> None:
        if not self.workers and not self.starting:
            self.start(1)
        self._changed()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def unfinished(workers: Sequence[WorkerProcess]) -> list[Any]:
    """Takes from `workers` all the jobs they hold."""
    left = [job for worker in workers for job in worker.held.values()]
    for worker in workers:
        worker.held.clear()
    return left
