"""Which waiting jobs go to which worker now, how long a kind takes, and when a job must be stopped (pure).

Jobs leave the queue strictly in order: what is at its head and does not fit blocks the rest, so that a job
that wants all cores gets them as soon as the present ones end. Small jobs of a kind whose run time is known
share a worker, in batches; anything else has a worker to itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, Protocol

#: Most jobs a worker holds at a time.
DEPTH_JOBS = 64
#: Most work a worker holds at a time, when it holds several jobs, seconds.
DEPTH_S = 0.020
#: A worker with less work than this takes more small jobs even while another core is free, seconds.
CHUNK_S = 0.0005
#: Most payload a worker holds at a time, when it holds several jobs, bytes.
DEPTH_BYTES = 512 * 1024
#: A job is small when its kind takes no longer than this, seconds.
SMALL_S = 0.0025
#: No job is taken to be shorter than this, seconds.
LEAST_S = 5e-6
#: A kind's run time is known after so many jobs.
SAMPLES = 3
#: Jobs behind one that runs longer than this are called back, so that another worker can have them, seconds.
RECALL_S = 0.02
#: A job that has lost so many workers through no visible fault of its own is run no more.
MAX_RERUNS = 3
#: A worker idle for longer than this ends, unless it is the last one, seconds.
IDLE_S = 60.0
MIB = 1024 * 1024


class Wanted(Protocol):
    """What this file reads of a job."""

    @property
    def kind(self) -> str: ...
    @property
    def cores(self) -> int: ...
    @property
    def payload(self) -> bytes: ...


@dataclass(slots=True)
class Rate:
    """How long jobs of a kind take: a mean that outliers move slowly, and how many it rests on."""

    mean_s: float = 0.0
    samples: int = 0

    def add(self, ran_s: float) -> None:
        """One more job ran `ran_s` seconds. Of the first few the least counts: the very first loads libraries."""
        self.samples += 1
        if self.samples <= SAMPLES:
            self.mean_s = ran_s if self.samples == 1 else min(self.mean_s, ran_s)
        else:
            self.mean_s += 0.1 * (min(ran_s, 4 * self.mean_s + 0.001) - self.mean_s)


@dataclass(slots=True)
class WorkerSlot:
    """A worker that can take work. `cores` is 0 while it has none."""

    cores: int = 0
    jobs: int = 0
    work_s: float = 0.0
    """estimated, of all its jobs"""
    size_bytes: int = 0
    shared: bool = False
    """whether all it has are small jobs, so that another small one may join them"""
    last: str = ""
    """the kind of the last job it was sent: its libraries are loaded there, perhaps a model"""


@dataclass(frozen=True, slots=True)
class Plan:
    """(seat, how many jobs) in turn, taken from the head of the queue; and how many workers to start."""

    batches: list[tuple[int, int]]
    start: int = 0


def small_s(kind: str, cores: int, rates: Mapping[str, Rate]) -> float:
    """The run time to expect of a small job; 0 when it is not small, or nobody knows yet."""
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
    waiting: Iterable[Wanted],
    worker_slots: Sequence[WorkerSlot],
    slots: int,
    rates: Mapping[str, Rate],
    starting: int = 0,
) -> Plan:
    """Who gets what now. `seats` are updated to what they hold afterwards; `starting` workers are on their way.

    Promises: never more than `slots` cores in use (a wider job counts as `slots`); jobs leave in order; a job
    that is not small gets an idle worker; a small one joins others only where they take under CHUNK_S
    together, or no idle worker or no core is left.
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
        # Once more what _fits says: this loop runs for every job.
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
            # Past CHUNK_S all round: that much for this one, then the least laden is looked for again.
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
    """The seat for the job at the head of the queue, an idle one whose last job was of the same kind before other idle
    ones; -1 when it must wait."""
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


def _start(ahead: Iterable[Wanted], free: int, slots: int, rates: Mapping[str, Rate], room: int, starting: int) -> int:
    """How many workers to start for the jobs `ahead`, of which `starting` ones will take the first."""
    wanted = 0
    for job in ahead:
        cores = min(job.cores, slots)
        if cores > free:
            break
        free -= cores
        wanted += 1
        if small_s(job.kind, cores, rates):
            break
    return max(0, min(wanted - starting, room))


Verdict = Literal["timeout", "memory", "recall"]


def judge(
    ran_s: float, timeout_s: float, resident_bytes: int, base_bytes: int, memory_mb: int, behind: int
) -> Verdict | None:
    """What to do about a job that has run for `ran_s` seconds in a worker with `behind` more jobs after it.

    A `timeout_s` or `memory_mb` of 0 means no limit; `resident_bytes` is 0 when it was not measured.
    """
    if 0 < timeout_s < ran_s:
        return "timeout"
    if memory_mb and resident_bytes - base_bytes > memory_mb * MIB:
        return "memory"
    if behind and ran_s > RECALL_S:
        return "recall"
    return None


def fate(seq: int, culprit: int, verdict: tuple[int, str] | None, dropped: bool, reruns: int) -> str:
    """What becomes of the job `seq` whose worker died: "again", or the code it ends with.

    `culprit` is the job the worker was on (0: none), `verdict` the (job, reason) for which it was killed, if it
    was; `reruns` counts the workers this job has lost before. A job that loses too many ends as a culprit.
    """
    if dropped:
        return "cancelled"
    if verdict is not None:
        return verdict[1] if seq == verdict[0] else "again"
    return "crashed" if seq == culprit or reruns >= MAX_RERUNS else "again"


def surplus(idle_s: Sequence[float], workers: int) -> list[int]:
    """Which of the idle workers (by index; seconds each has been idle) to let go: the long idle, but one stays."""
    long_idle = [index for index, idle in enumerate(idle_s) if idle > IDLE_S]
    return long_idle[1:] if len(long_idle) == workers else long_idle
