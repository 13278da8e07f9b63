"""Runs jobs in worker processes: the daemon's only way to do work, and none of it in the daemon's own process.

Which job goes where and when one must be stopped is decided in `dispatch` (pure). Promises: every submitted
job is reported finished exactly once, unless `stop` gives it back; a job that dies with its worker takes no
other job with it (those are run again, unasked); no workload holds up the caller. It does not promise that an
innocent job in the batch of a crashing one runs once only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from node.executor import limits, protocol
from node.executor.dispatch import Rate, assign, fate, judge
from node.executor.jobs import Finished, Job, answered, unanswered
from node.executor.pool import WorkerPool, unfinished
from node.executor.process import Allowed, WorkerProcess

log = logging.getLogger(__name__)

__all__ = ["Executor", "Finished", "Job"]

TICK_S = 0.025
MEMORY_EVERY_TICKS = 4
#: Where all that runs has been running for longer than this, workers are looked after only as often as their memory.
STEADY_AFTER_S, STEADY_TICK_S = 1.0, TICK_S * MEMORY_EVERY_TICKS
IDLE_TICK_S = 5.0


class Executor:
    """Worker processes and the queue before them.

    `grants` is what the operator allows (`Context.granted`). `on_started` is called when a job is handed to a worker,
    and again when it is handed to another one; `on_called_back` when it has none any more and waits for the next one
    (its worker died, or is on a job that takes long); `on_finished` with all that one read from a worker brought;
    `on_progress(job, fraction, note, text, text_from)` at most ten times a second a worker; `on_checkpoint(job, file,
    note)` with a file that is the receiver's from then on. All are called in the loop's thread and must not block.
    """

    def __init__(
        self,
        *,
        slots: int,
        folder: Path,
        fault_kinds: bool = False,
        grants: Mapping[str, tuple[str, ...]] | None = None,
        on_started: Callable[[Job], None],
        on_finished: Callable[[list[Finished]], None],
        on_progress: Callable[[Job, float, str, str, int], None],
        on_checkpoint: Callable[[Job, Path, str], None] = lambda job, file, note: file.unlink(missing_ok=True),
        on_called_back: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.slots = slots
        self.rates: dict[str, Rate] = {}
        """kind -> how long its jobs take here"""
        self._on_started, self._on_finished, self._on_progress = on_started, on_finished, on_progress
        self._on_checkpoint, self._on_called_back = on_checkpoint, on_called_back
        self._pool = WorkerPool(folder, Allowed(fault_kinds, grants or {}), self._hear, self._buried, self._dispatch)
        self._waiting: deque[Job] = deque()
        self._reruns: dict[str, int] = {}
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tick_s = 0.0
        self._dispatch_due = False
        self._stopping = False
        self._quiet = asyncio.Event()

    # --- what the caller sees

    @property
    def free_cores(self) -> int:
        """Cores that no job has."""
        return self.slots - sum(worker.worker_slot.cores for worker in self._pool.workers)

    @property
    def waiting(self) -> int:
        """Jobs that no worker has."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs that workers have."""
        return sum(len(worker.held) for worker in self._pool.everyone())

    async def start(self) -> None:
        """Clears the folder and starts one worker. Raises: CannotStart, when that does not get ready."""
        self._loop = asyncio.get_running_loop()
        await self._pool.open()

    async def stop(self, drain_s: float) -> list[Job]:
        """Waits `drain_s` seconds for what workers have, then ends them. The jobs that did not end."""
        self._stopping = True
        if self.running and drain_s > 0:
            try:
                await asyncio.wait_for(self._quiet.wait(), drain_s)
            except TimeoutError:
                log.info("%d jobs did not end within %g s and are given up", self.running, drain_s)
        left = [*unfinished(self._pool.everyone()), *self._waiting]
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        await self._pool.close()
        return left

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queues `jobs` behind those that wait; what comes in one turn of the loop is handed out together."""
        self._waiting.extend(jobs)
        if not self._dispatch_due:
            self._dispatch_due = True
            self._loop.call_soon(self._dispatch)

    def cancel(self, job_id: str) -> bool:
        """Drops a waiting job, or ends a running one with its worker; False when there is no such job.

        A job that ends in the same moment may still be reported as done.
        """
        for worker in self._pool.everyone():
            seq = next((seq for seq, job in worker.held.items() if job.id == job_id), 0)
            if seq and worker.lost:
                worker.dropped.add(job_id)
                return True
            if seq:
                self._recall(worker)
                if seq in worker.held:
                    self._end(worker, seq, "cancelled")
                    return True
        for job in self._waiting:
            if job.id == job_id:
                self._waiting.remove(job)
                self._loop.call_soon(self._report, [unanswered(job, "cancelled")])
                self._dispatch()
                return True
        return False

    def report_checkpoint(self, job: Job, kept: bool) -> None:
        """Lets the work know what became of a checkpoint of it."""
        for worker in self._pool.workers:
            for seq, held in worker.held.items():
                if held is job:
                    worker.report_checkpoint(seq, kept)

    # --- handing out

    def _dispatch(self) -> None:
        """Hands out what fits now."""
        self._dispatch_due = False
        if not self._waiting or self._stopping:
            return
        ready = [worker for worker in self._pool.workers if worker.ready and worker.verdict is None]
        plan = assign(self._waiting, [w.worker_slot for w in ready], self.slots, self.rates, self._pool.starting)
        batches: dict[int, list[Job]] = {}
        handed: list[Job] = []
        for index, count in plan.batches:
            batch = [self._waiting.popleft() for _ in range(count)]
            batches.setdefault(index, []).extend(batch)
            handed += batch
        for index, batch in batches.items():
            ready[index].send(batch)
        if plan.start:
            self._pool.start(plan.start)
        if handed and self._tick_s != TICK_S:
            self._set_timer(TICK_S)
        for job in handed:
            self._on_started(job)

    # --- hearing back

    def _hear(self, worker: WorkerProcess, received: Iterable[tuple[int, Any]]) -> None:
        """All that one read from a worker brought."""
        ended: list[Finished] = []
        for kind, body in received:
            if kind == protocol.RESULTS:
                self._take_results(worker, protocol.decode_results(body), ended)
            elif kind == protocol.PROGRESS:
                seq, *told = protocol.decode_progress(body)
                if seq in worker.held:
                    self._on_progress(worker.held[seq], *told)
            elif kind == protocol.CHECKPOINT:
                seq, file, note = protocol.decode_checkpoint(body)
                if seq in worker.held:
                    self._on_checkpoint(worker.held[seq], Path(file), note)
                else:
                    Path(file).unlink(missing_ok=True)
            elif kind == protocol.SKIPPED:
                back = [worker.held.pop(seq) for seq in protocol.decode_skipped(body) if seq in worker.held]
                self._waiting.extendleft(reversed(back))
            elif kind == protocol.READY:
                self._pool.ready(worker)
        worker.settle()
        self._dispatch()
        self._report(ended)

    def _take_results(self, worker: WorkerProcess, results: list[protocol.ResultFrame], ended: list[Finished]) -> None:
        held, rates = worker.held, self.rates
        for end in results:
            job = held.pop(end.seq, None)
            if job is None:
                # It was called back in the moment it started, and runs elsewhere.
                if end.file:
                    Path(end.file).unlink(missing_ok=True)
                continue
            rate = rates.get(job.kind)
            if rate is None:
                rate = rates[job.kind] = Rate()
            rate.add(end.ran_s)
            ended.append(answered(job, end))

    def _report(self, ended: list[Finished]) -> None:
        if ended:
            if self._reruns:
                for end in ended:
                    self._reruns.pop(end.job.id, None)
            try:
                self._on_finished(ended)
            except Exception:
                log.exception("taking the results of %d jobs failed", len(ended))
        if self._stopping and not self.running:
            self._quiet.set()

    # --- watching

    def _set_timer(self, tick_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tick_s = tick_s
        self._timer = self._loop.call_later(tick_s, self._tick)

    def _tick(self) -> None:
        """Looks after every worker: often while one is busy, rarely while several are idle, else not at all."""
        self._ticks += 1
        weigh = self._tick_s == STEADY_TICK_S or self._ticks % MEMORY_EVERY_TICKS == 0
        self._timer, self._tick_s = None, 0.0
        now = monotonic()
        for worker in list(self._pool.workers):
            if worker.held and not worker.verdict:
                self._watch(worker, now, weigh)
        self._pool.retire_surplus(now)
        busy = [worker for worker in self._pool.workers if worker.held]
        if busy:
            steady = all(worker.current(now)[1] > STEADY_AFTER_S for worker in busy)
            self._set_timer(STEADY_TICK_S if steady else TICK_S)
        elif len(self._pool.workers) > 1:
            self._set_timer(IDLE_TICK_S)
        self._dispatch()

    def _watch(self, worker: WorkerProcess, now: float, weigh: bool) -> None:
        resident = 0
        if weigh:
            resident = limits.resident_bytes(worker.pid)
            worker.bound_log()
            if worker.process.poll() is not None:
                worker.kill()
                return
        seq, ran_s = worker.current(now)
        if not seq:
            return
        job = worker.held[seq]
        verdict = judge(ran_s, job.timeout_s, resident, worker.base_bytes(), job.memory_mb, worker.behind())
        if verdict == "recall":
            self._recall(worker)
        elif verdict:
            self._end(worker, seq, verdict)

    def _recall(self, worker: WorkerProcess) -> None:
        """Takes back what a worker has not started, to the head of the queue."""
        self._wait_again(worker.call_back())
        worker.settle()
        # What it is on is no small job, whatever its kind: nothing joins it.
        worker.worker_slot.shared = False

    def _wait_again(self, jobs: Sequence[Job]) -> None:
        self._waiting.extendleft(reversed(jobs))
        for job in jobs:
            self._on_called_back(job)

    def _end(self, worker: WorkerProcess, seq: int, why: str) -> None:
        """Kills a worker because of the job `seq`; the rest follows when it is gone."""
        if worker.verdict is None:
            worker.verdict = (seq, why)
            worker.kill()

    def _buried(self, worker: WorkerProcess, culprit: int, ran_s: float, how: str) -> None:
        """Settles what a lost worker held: its culprit ends, all others run again, in their old order."""
        ended, again = [], []
        for seq, job in worker.held.items():
            reruns = self._reruns.get(job.id, 0)
            why = fate(seq, culprit, worker.verdict, job.id in worker.dropped, reruns)
            if why == "again":
                self._reruns[job.id] = reruns + 1
                again.append(job)
            else:
                ended.append(unanswered(job, why, ran_s if seq == culprit else 0.0, how))
        worker.held.clear()
        self._wait_again(again)
        self._report(ended)
