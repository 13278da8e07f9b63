"""Runs jobs in worker processes. The daemon never runs a workload in its own process.

`dispatch` (pure) decides which job goes to which worker and when a job must be stopped. Promises: every submitted job
is reported as finished exactly once, unless `stop` returns it; a job whose worker dies takes no other job with it
(those run again automatically); no workload blocks the caller. Not promised: that a job in the same batch as a crashing
one runs only once.
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
from node.executor.process import Permissions, WorkerProcess

log = logging.getLogger(__name__)

__all__ = ["Executor", "Finished", "Job"]

TICK_S = 0.025
MEMORY_EVERY_TICKS = 4
#: When every present job has run for longer than this, all checks are as rare as those of memory, seconds.
STEADY_AFTER_S, STEADY_TICK_S = 1.0, TICK_S * MEMORY_EVERY_TICKS
IDLE_TICK_S = 5.0


class Executor:
    """Worker processes and the queue in front of them.

    `grants`: what the operator allows (`Context.granted`). The callbacks run in the loop's thread and must not block:
    `on_started(job)` when a worker gets a job, and again when another worker gets it; `on_called_back(job)` when a job
    waits for a worker again, because its worker died or runs a long job; `on_finished(ends)` with the ends of one read
    from a worker; `on_progress(job, fraction, note, text, text_from)` at most ten times a second per worker;
    `on_checkpoint(job, file, note)` with a file that belongs to the receiver from then on.
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
        """kind -> the run time of its jobs on this node"""
        self._on_started, self._on_finished, self._on_progress = on_started, on_finished, on_progress
        self._on_checkpoint, self._on_called_back = on_checkpoint, on_called_back
        self._pool = WorkerPool(
            folder, Permissions(fault_kinds, grants or {}), self._on_frames, self._on_worker_gone, self._dispatch
        )
        self._waiting: deque[Job] = deque()
        self._reruns: dict[str, int] = {}
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._tick_s = 0.0
        self._dispatch_due = False
        self._stopping = False
        self._quiet = asyncio.Event()

    # --- for the caller

    @property
    def free_cores(self) -> int:
        """Cores that no job uses."""
        return self.slots - sum(worker.worker_slot.cores for worker in self._pool.workers)

    @property
    def running(self) -> int:
        """Jobs that workers hold."""
        return sum(len(worker.held) for worker in self._pool.all_workers())

    async def start(self) -> None:
        """Clear the folder and start one worker. Raises: CannotStart, when no worker gets ready."""
        self._loop = asyncio.get_running_loop()
        await self._pool.open()

    async def stop(self, drain_s: float) -> list[Job]:
        """End the workers after `drain_s` seconds at most; the jobs that did not end by then. Safe before `start`."""
        self._stopping = True
        if self.running and drain_s > 0:
            try:
                await asyncio.wait_for(self._quiet.wait(), drain_s)
            except TimeoutError:
                log.info("%d jobs did not end within %g s and are returned unfinished", self.running, drain_s)
        left = [*unfinished(self._pool.all_workers()), *self._waiting]
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
        await self._pool.close()
        return left

    def submit(self, jobs: Sequence[Job]) -> None:
        """Append `jobs` to the queue; those submitted in one turn of the loop are dispatched together."""
        self._waiting.extend(jobs)
        if not self._dispatch_due:
            self._dispatch_due = True
            self._loop.call_soon(self._dispatch)

    def cancel(self, token: object) -> bool:
        """Drop the waiting job with this token, or end the running one together with its worker; False when there is
        none. Its id is not enough: a task that was sent twice may be here twice.

        A job that ends at the same moment may still be reported as done.
        """
        for worker in self._pool.all_workers():
            seq = next((seq for seq, job in worker.held.items() if job.token is token), 0)
            if seq and worker.lost:
                worker.dropped.add(seq)
                return True
            if seq:
                self._recall(worker)
                if seq in worker.held:
                    self._end(worker, seq, "cancelled")
                    return True
        for job in self._waiting:
            if job.token is token:
                self._waiting.remove(job)
                self._loop.call_soon(self._report, [unanswered(job, "cancelled")])
                self._dispatch()
                return True
        return False

    def report_checkpoint(self, job: Job, stored: bool) -> None:
        """Report to the workload of `job` whether a checkpoint of it was stored."""
        for worker in self._pool.workers:
            for seq, held in worker.held.items():
                if held is job:
                    worker.report_checkpoint(seq, stored)

    # --- dispatching

    def _dispatch(self) -> None:
        """Send the jobs that fit now to workers."""
        self._dispatch_due = False
        if not self._waiting or self._stopping:
            return
        self._pool.keep_folder()
        ready = [worker for worker in self._pool.workers if worker.takes_jobs]
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

    # --- frames from workers

    def _on_frames(self, worker: WorkerProcess, received: Iterable[tuple[int, Any]]) -> None:
        """Handle the frames of one read from a worker."""
        ended: list[Finished] = []
        for kind, body in received:
            if kind == protocol.RESULTS:
                self._take_results(worker, protocol.decode_results(body), ended)
            elif kind == protocol.PROGRESS:
                seq, fraction, note, text, text_from = protocol.decode_progress(body)
                if seq in worker.held:
                    self._on_progress(worker.held[seq], fraction, note, text, text_from)
            elif kind == protocol.CHECKPOINT:
                seq, file, note = protocol.decode_checkpoint(body)
                if seq in worker.held:
                    self._on_checkpoint(worker.held[seq], Path(file), note)
                else:
                    Path(file).unlink(missing_ok=True)
            elif kind == protocol.SKIPPED:
                skipped = [worker.held.pop(seq) for seq in protocol.decode_skipped(body) if seq in worker.held]
                self._waiting.extendleft(reversed(skipped))
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
                # It was recalled at the moment it started, and runs in another worker.
                for file in (end.file, *(file for file, _ in (end.attached or {}).values())):
                    if file:
                        Path(file).unlink(missing_ok=True)
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
                log.exception("could not process the results of %d jobs", len(ended))
        if self._stopping and not self.running:
            self._quiet.set()

    # --- checks

    def _set_timer(self, tick_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tick_s = tick_s
        self._timer = self._loop.call_later(tick_s, self._tick)

    def _tick(self) -> None:
        """Check every worker: often while one is busy, rarely while several are idle, else not at all."""
        self._ticks += 1
        with_memory = self._tick_s == STEADY_TICK_S or self._ticks % MEMORY_EVERY_TICKS == 0
        self._timer, self._tick_s = None, 0.0
        now = monotonic()
        for worker in list(self._pool.workers):
            if worker.held and not worker.verdict:
                self._check(worker, now, with_memory)
        self._pool.retire_surplus(now)
        busy = [worker for worker in self._pool.workers if worker.held]
        if busy:
            steady = all(worker.current(now)[1] > STEADY_AFTER_S for worker in busy)
            self._set_timer(STEADY_TICK_S if steady else TICK_S)
        elif len(self._pool.workers) > 1:
            self._set_timer(IDLE_TICK_S)
        self._dispatch()

    def _check(self, worker: WorkerProcess, now: float, with_memory: bool) -> None:
        resident = 0
        if with_memory:
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
        """Put the jobs that a worker has not started back at the head of the queue."""
        self._requeue(worker.recall())
        worker.settle()
        # Its present job is not small, whatever its kind: no other job may join it.
        worker.worker_slot.shared = False

    def _requeue(self, jobs: Sequence[Job]) -> None:
        self._waiting.extendleft(reversed(jobs))
        for job in jobs:
            self._on_called_back(job)

    def _end(self, worker: WorkerProcess, seq: int, reason: str) -> None:
        """Kill a worker because of the job `seq`; its jobs are settled when it has ended."""
        if worker.verdict is None:
            worker.verdict = (seq, reason)
            worker.kill()

    def _on_worker_gone(self, worker: WorkerProcess, culprit: int, ran_s: float, how: str) -> None:
        """Settle the jobs of a worker that has ended: the culprit ends, all others run again, in their order."""
        ended, again = list[Finished](), list[Job]()
        for seq, job in worker.held.items():
            reruns = self._reruns.get(job.id, 0)
            code = fate(seq, culprit, worker.verdict, seq in worker.dropped, reruns)
            if code == "rerun":
                self._reruns[job.id] = reruns + 1
                again.append(job)
            else:
                ended.append(unanswered(job, code, ran_s if seq == culprit else 0.0, how))
        worker.held.clear()
        self._requeue(again)
        self._report(ended)
