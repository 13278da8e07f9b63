"""The executor's decisions: cores never exceed slots, order is kept, no job starves or waits behind a long one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from node.executor import dispatch
from node.executor.dispatch import Rate, WorkerSlot, assign, fate, judge, surplus

RATES = {
    "tiny": Rate(5e-6, 100),
    "milli": Rate(0.001, 100),
    "long": Rate(1.0, 100),
    "new": Rate(1e-6, dispatch.SAMPLES - 1),
}


@dataclass(frozen=True)
class JobRequest:
    kind: str
    cores: int
    payload: bytes = b""
    number: int = 0


job_lists = st.lists(
    st.builds(
        JobRequest,
        st.sampled_from([*RATES, "unheard-of"]),
        st.sampled_from([1, 1, 1, 2, 4, 9]),
        st.sampled_from([b"", b"x" * 200_000]),
    ),
    max_size=150,
)


@given(job_lists, st.integers(1, 6), st.integers(1, 6))
def test_every_job_is_dispatched_in_order_and_cores_are_never_exceeded(jobs, slots, workers):
    """Simulates a whole run: after each assignment the worker with most jobs ends the first of them."""
    workers = min(workers, slots)
    waiting = deque(enumerate_jobs(jobs))
    held: list[deque[JobRequest]] = [deque() for _ in range(workers)]
    handed: list[int] = []
    while waiting or any(held):
        worker_slots = [worker_slot_of(queue, slots) for queue in held]
        plan = assign(waiting, worker_slots, slots, RATES)
        for index, count in plan.batches:
            for _ in range(count):
                job = waiting.popleft()
                held[index].append(job)
                handed.append(job.number)
        check(held, worker_slots, slots)
        assert any(held), "no job runs while some wait"
        max(held, key=len).popleft()
    assert handed == list(range(len(jobs)))


def enumerate_jobs(jobs):
    return [JobRequest(job.kind, job.cores, job.payload, number) for number, job in enumerate(jobs)]


def small(job, slots):
    return dispatch.small_s(job.kind, min(job.cores, slots), RATES)


def worker_slot_of(queue, slots):
    if not queue:
        return WorkerSlot()
    expected = [small(job, slots) for job in queue]
    size = sum(len(job.payload) for job in queue)
    return WorkerSlot(min(queue[0].cores, slots), len(queue), sum(expected), size, all(expected))


def check(held, worker_slots, slots):
    assert sum(min(queue[0].cores, slots) for queue in held if queue) <= slots
    for queue, worker_slot in zip(held, worker_slots, strict=True):
        assert len(queue) == worker_slot.jobs <= dispatch.DEPTH_JOBS
        if len(queue) > 1:
            assert all(small(job, slots) for job in queue), "a job that is not small shares a worker"
            assert worker_slot.work_s <= dispatch.DEPTH_S + 1e-9
            assert worker_slot.size_bytes <= dispatch.DEPTH_BYTES


@given(job_lists, st.integers(1, 6), st.integers(0, 6), st.integers(0, 3))
def test_workers_are_started_only_for_waiting_jobs_and_never_more_than_slots(jobs, slots, workers, starting):
    workers, starting = min(workers, slots), min(starting, slots - min(workers, slots))
    plan = assign(jobs, [WorkerSlot() for _ in range(workers)], slots, RATES, starting)
    assert 0 <= plan.start <= slots - workers - starting
    taken = sum(count for _, count in plan.batches)
    if taken == len(jobs):
        assert not plan.start
    if jobs and not workers and not starting:
        assert plan.start


def test_a_free_core_is_used_before_a_worker_gets_a_second_job():
    plan = assign([JobRequest("milli", 1)] * 3, [WorkerSlot(), WorkerSlot()], 2, RATES)
    assert plan.batches == [(0, 1), (1, 1), (0, 1)]


def test_tiny_jobs_stay_in_one_batch():
    assert assign([JobRequest("tiny", 1)] * 40, [WorkerSlot(), WorkerSlot()], 2, RATES).batches == [(0, 40)]


def test_a_wide_job_at_the_head_holds_back_those_behind_it():
    busy = WorkerSlot(cores=1, jobs=1)
    plan = assign([JobRequest("long", 2), JobRequest("tiny", 1)], [busy, WorkerSlot()], 2, RATES)
    assert plan.batches == [] and plan.start == 0


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=60))
def test_a_mean_stays_within_the_samples(samples):
    rate = Rate()
    for ran_s in samples:
        rate.add(ran_s)
    assert min(samples) * 0.999 <= rate.mean_s <= max(samples) * 1.001


def test_one_outlier_does_not_make_a_small_kind_long():
    rate = Rate()
    for _ in range(50):
        rate.add(1e-5)
    rate.add(30.0)
    assert rate.mean_s < dispatch.SMALL_S


def test_the_limit_that_a_job_exceeds():
    mib = dispatch.MIB
    assert judge(2.1, 2.0, 0, 0, 512, 0) == "timeout"
    assert judge(2.1, 0.0, 0, 0, 512, 0) is None
    assert judge(0.1, 2.0, 600 * mib, 80 * mib, 512, 0) == "memory"
    assert judge(0.1, 2.0, 600 * mib, 90 * mib, 512, 3) == "recall"
    assert judge(0.1, 2.0, 600 * mib, 0, 0, 0) is None
    assert judge(0.001, 2.0, 0, 0, 512, 60) is None


@given(st.sets(st.integers(1, 60), min_size=1), st.integers(0, 70), st.booleans())
def test_a_dead_worker_fails_at_most_one_job(held, culprit, killed):
    verdict = (culprit, "timeout") if killed else None
    fates = {seq: fate(seq, culprit, verdict, False, 0) for seq in held}
    guilty = [seq for seq, what in fates.items() if what != "rerun"]
    assert guilty == ([culprit] if culprit in held else [])
    assert all(fates[seq] == ("timeout" if killed else "crashed") for seq in guilty)


def test_a_job_that_keeps_losing_workers_ends():
    assert fate(5, 0, None, False, dispatch.MAX_RERUNS) == "crashed"
    assert fate(5, 4, None, True, 0) == "cancelled"


@given(st.lists(st.floats(0, 200), max_size=8), st.integers(0, 4))
def test_one_worker_always_stays(idle_s, busy):
    gone = surplus(idle_s, len(idle_s) + busy)
    assert all(idle_s[index] > dispatch.IDLE_S for index in gone)
    assert len(idle_s) + busy == 0 or len(gone) < len(idle_s) + busy
