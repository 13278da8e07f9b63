"""Decides which waiting job goes to which worker, estimates run times, and decides when a job must be stopped (pure).

Jobs leave the queue strictly in order: a job at its head that does not fit blocks the rest, so that a job that needs
all cores gets them as soon as the running ones end. Small jobs of a kind with a known run time share a worker, in
batches; any other job has a worker to itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

#: Most jobs a worker holds at a time.
DEPTH_JOBS = 64
#: Most run time a worker holds at a time, when it holds several jobs, seconds.
DEPTH_S = 0.020
#: A worker with less run time than this gets more small jobs even while another core is free, seconds.
CHUNK_S = 0.0005
#: Most payload a worker holds at a time, when it holds several jobs, bytes.
DEPTH_BYTES = 512 * 1024
#: A job is small when the mean run time of its kind is at most this, seconds.
SMALL_S = 0.0025
#: Shorter run times count as this, seconds.
LEAST_S = 5e-6
#: The run time of a kind is known after this many jobs.
SAMPLES = 3
#: Jobs that wait behind one that runs longer than this are recalled, so that another worker gets them, seconds.
RECALL_S = 0.02
#: A job ends as crashed once this many of its workers have died, although none seemed to die of it.
MAX_RERUNS = 3
#: A worker that is idle for longer than this ends, unless it is the last one, seconds.
IDLE_S = 60.0
MIB = 1024 * 1024


class QueuedJob(Protocol):
    """The part of a job that decides where it runs."""

    @property
    def kind(self) -> str: ...
    @property
    def cores(self) -> int: ...
    @property
    def payload(self) -> bytes: ...


@dataclass(slots=True)
class Rate:
    """The run time of a kind: a mean that outliers move slowly, and the number of jobs behind it."""

    mean_s: float = 0.0
    samples: int = 0

    def add(self, ran_s: float) -> None:
        """Add a job that ran `ran_s` seconds. Of the first few the shortest counts: the very first loads libraries."""
        self.samples += 1
        if self.samples <= SAMPLES:
            self.mean_s = ran_s if self.samples == 1 else min(self.mean_s, ran_s)
        else:
            self.mean_s += 0.1 * (min(ran_s, 4 * self.mean_s + 0.001) - self.mean_s)


@dataclass(slots=True)
class WorkerSlot:
    """The load of one worker. `cores` is 0 while it has no job."""

    cores: int = 0
    jobs: int = 0
    work_s: float = 0.0
    """estimated run time of all its jobs"""
    size_bytes: int = 0
    shared: bool = False
    """whether all its jobs are small, so that another small job may join them"""
    last: str = ""
    """the kind of the last job it got: it has the libraries of that kind loaded, perhaps a model"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Batches (index of the worker slot, number of jobs) from the head of the queue, and how many workers to start."""

    batches: list[tuple[int, int]]
    start: int = 0


def small_s(kind: str, cores: int, rates: Mapping[str, Rate]) -> float:
    """The expected run time of a small job; 0 when it is not small, or its run time is unknown."""
    rate = rates.get(kind)
    if rate is None or cores != 1 or rate.samples < SAMPLES or rate.mean_s > SMALL_S:
        return 0.0
    return rate.mean_s if rate.mean_s > LEAST_S else LEAST_S


def _fits(worker_slot: WorkerSlot, expected_s: float, size_bytes: int, limit_s: float) -> bool:
    return (
        worker_slot.shared
        and worker_slot.jobs < DEPTH_JOBS
        and worker_slot.work_s + expected_s <= limit_s
        and worker_slot.size_bytes + size_bytes <= DEPTH_BYTES
    )


def assign(
    waiting: Iterable[QueuedJob],
    worker_slots: Sequence[WorkerSlot],
    slots: int,
    rates: Mapping[str, Rate],
    starting: int = 0,
) -> Plan:
    """Assign waiting jobs to workers. Updates `worker_slots` to their new load; `starting`: workers about to be ready.

    Promises: never more than `slots` cores in use (a wider job counts as `slots`); jobs leave in order; a job that is
    not small gets an idle worker; a small one joins others only where they take less than CHUNK_S together, or when no
    idle worker or no core is left.
    """
    free = slots - sum(worker_slot.cores for worker_slot in worker_slots)
    batches: list[tuple[int, int]] = []
    at, limit_s, count, taken, blocked = -1, CHUNK_S, 0, 0, False
    known: dict[str, float] = {}
    worker_slot = WorkerSlot()
    for job in waiting:
        cores = 1 if job.cores == 1 else min(job.cores, slots)
        kind, size_bytes = job.kind, len(job.payload)
        expected_s = known.get(kind, -1.0) if cores == 1 else 0.0
        if expected_s < 0:
            expected_s = known[kind] = small_s(kind, 1, rates)
        # The conditions of _fits, inlined: this loop runs for every job.
        if (
            not expected_s
            or not worker_slot.shared
            or worker_slot.jobs >= DEPTH_JOBS
            or worker_slot.work_s + expected_s > limit_s
            or worker_slot.size_bytes + size_bytes > DEPTH_BYTES
        ):
            if count:
                batches.append((at, count))
            count = 0
            at = _choose(worker_slots, free, cores, expected_s, size_bytes, kind)
            if at < 0:
                blocked = True
                break
            worker_slot = worker_slots[at]
            # All workers are past CHUNK_S: this one gets that much more, then the least loaded one is chosen again.
            limit_s = min(DEPTH_S, worker_slot.work_s + CHUNK_S)
            if not worker_slot.jobs:
                free -= cores
                worker_slot.cores, worker_slot.shared, worker_slot.last = cores, expected_s > 0, kind
        worker_slot.jobs += 1
        worker_slot.work_s += expected_s
        worker_slot.size_bytes += size_bytes
        count += 1
        taken += 1
    if count:
        batches.append((at, count))
    if not blocked:
        return Plan(batches)
    ahead = islice(waiting, taken, taken + slots)
    return Plan(batches, _start(ahead, free, slots, rates, slots - len(worker_slots) - starting, starting))


def _choose(
    worker_slots: Sequence[WorkerSlot], free: int, cores: int, expected_s: float, size_bytes: int, kind: str
) -> int:
    """The index of the worker slot for the job at the head of the queue; -1 when it must wait.

    Of idle workers, one whose last job was of the same kind comes first.
    """
    if expected_s:
        for index, worker_slot in enumerate(worker_slots):
            if _fits(worker_slot, expected_s, size_bytes, CHUNK_S):
                return index
    if free >= cores:
        idle = -1
        for index, worker_slot in enumerate(worker_slots):
            if not worker_slot.jobs:
                if worker_slot.last == kind:
                    return index
                idle = index if idle < 0 else idle
        if idle >= 0:
            return idle
    if expected_s:
        least = min(
            (worker_slot.work_s, index)
            for index, worker_slot in [(-1, WorkerSlot(work_s=float("inf"))), *enumerate(worker_slots)]
            if index < 0 or _fits(worker_slot, expected_s, size_bytes, DEPTH_S)
        )
        return least[1]
    return -1


def _start(
    ahead: Iterable[QueuedJob], free: int, slots: int, rates: Mapping[str, Rate], room: int, starting: int
) -> int:
    """How many workers to start for the jobs `ahead`, the first of which the `starting` workers will take."""
    needed = 0
    for job in ahead:
        cores = min(job.cores, slots)
        if cores > free:
            break
        free -= cores
        needed += 1
        if small_s(job.kind, cores, rates):
            break
    return max(0, min(needed - starting, room))


Verdict = Literal["timeout", "memory", "recall"]


def judge(
    ran_s: float, timeout_s: float, resident_bytes: int, base_bytes: int, memory_mb: int, behind: int
) -> Verdict | None:
    """Whether to stop a job that has run for `ran_s` seconds, or to recall the `behind` jobs that wait behind it.

    A `timeout_s` or `memory_mb` of 0 means no limit; a `resident_bytes` of 0 was not measured.
    """
    if 0 < timeout_s < ran_s:
        return "timeout"
    if memory_mb and resident_bytes - base_bytes > memory_mb * MIB:
        return "memory"
    if behind and ran_s > RECALL_S:
        return "recall"
    return None


def fate(seq: int, culprit: int, verdict: tuple[int, str] | None, dropped: bool, reruns: int) -> str:
    """What happens to the job `seq` whose worker died: "rerun", or the code with which it ends.

    `culprit`: the job that the worker was running (0: none); `verdict`: the (job, reason) for which the worker was
    killed, if it was; `dropped`: whether the job was cancelled; `reruns`: how many of its workers died before.
    """
    if dropped:
        return "cancelled"
    if verdict is not None:
        return verdict[1] if seq == verdict[0] else "rerun"
    return "crashed" if seq == culprit or reruns >= MAX_RERUNS else "rerun"


def surplus(idle_s: Sequence[float], workers: int) -> list[int]:
    """The indexes of the idle workers to end: those idle for long, but never all `workers`.

    `idle_s`: how long each has been idle, seconds.
    """
    long_idle = [index for index, idle in enumerate(idle_s) if idle > IDLE_S]
    return long_idle[1:] if len(long_idle) == workers else long_idle
