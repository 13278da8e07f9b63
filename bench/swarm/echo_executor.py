"""In the place of a node's worker processes: answers `echo` in the event loop, as workers would.

For no-ops and sleeps only. Slots are limited and tasks queue; the states, announced deliveries, conditional end records
and acks of the tasks come from the node's own parts around this one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from mesh.messages import TaskError, decode_any, encode
from node.executor.dispatch import Rate
from node.executor.jobs import Finished, Job, unanswered

#: Run time of a no-op in a worker process, seconds, which the node reports as its speed.
NO_OP_S = 50e-6


class EchoExecutor:
    """The interface of a node's executor (`node/executor/executor.py`), without processes."""

    def __init__(
        self,
        slots: int,
        on_started: Callable[[Job], None],
        on_finished: Callable[[list[Finished]], None],
        is_wrong: Callable[[], bool],
    ) -> None:
        self.slots = slots
        self.rates: dict[str, Rate] = {}
        self._on_started, self._on_finished, self._is_wrong = on_started, on_finished, is_wrong
        self._waiting: deque[Job] = deque()
        self._sleeping: dict[str, tuple[Job, asyncio.TimerHandle]] = {}
        self._due = False
        self._loop = asyncio.get_running_loop()

    @property
    def running(self) -> int:
        """Jobs that run now."""
        return len(self._sleeping)

    @property
    def free_cores(self) -> int:
        """Free slots."""
        return self.slots - len(self._sleeping)

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self, drain_s: float) -> list[Job]:
        """End at once; returns the jobs that did not end."""
        left = [job for job, _ in self._sleeping.values()] + list(self._waiting)
        for _, timer in self._sleeping.values():
            timer.cancel()
        self._sleeping.clear()
        self._waiting.clear()
        return left

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue `jobs`; they begin in the next iteration of the event loop."""
        self._waiting.extend(jobs)
        self._dispatch_soon()

    def cancel(self, job_id: str) -> bool:
        """Drop a job; False when there is no job of that id."""
        found = self._sleeping.pop(job_id, None)
        if found is not None:
            found[1].cancel()
        job = found[0] if found else next((waiting for waiting in self._waiting if waiting.id == job_id), None)
        if job is None:
            return False
        if found is None:
            self._waiting.remove(job)
        self._loop.call_soon(self._on_finished, [unanswered(job, "cancelled")])
        self._dispatch_soon()
        return True

    def report_checkpoint(self, job: Job, kept: bool) -> None:
        """Nothing to report: an echo stores no checkpoints."""

    def _dispatch_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._due = False
        ended: list[Finished] = []
        while self._waiting and self.free_cores > 0:
            job = self._waiting.popleft()
            self._on_started(job)
            payload = decode_any(job.payload) if job.payload else {}
            sleep_s = float(payload.get("sleep_s") or 0.0)
            if sleep_s:
                self._sleeping[job.id] = (job, self._loop.call_later(sleep_s, self._wake, job, payload, sleep_s))
            else:
                ended.append(self._answer(job, payload, NO_OP_S))
        if ended:
            self._on_finished(ended)

    def _wake(self, job: Job, payload: dict[str, object], slept_s: float) -> None:
        del self._sleeping[job.id]
        self._on_finished([self._answer(job, payload, slept_s)])
        self._dispatch_soon()

    def _answer(self, job: Job, payload: dict[str, object], ran_s: float) -> Finished:
        if job.kind != "echo":
            error = TaskError("unavailable", f"a node of a swarm runs only echo, not {job.kind}")
            return Finished(job, error=error)
        self.rates.setdefault(job.kind, Rate()).add(ran_s)
        value = "falsified" if self._is_wrong() else payload.get("value")
        return Finished(job, encode({"value": value}), started_at=time.time() - ran_s, ran_s=ran_s)
