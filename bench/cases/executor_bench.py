"""The executor alone, without the bus: no-op jobs/s through worker processes, and the daemon's CPU time per job.

Run by hand: `python -m bench.cases.executor_bench [jobs] [slots]`. Every result is compared with its payload.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.harness.environment import pss_mb
from mesh.messages import decode_any, encode
from node.executor.executor import Executor, Finished, Job


async def measure(jobs: int, slots: int, window: int) -> dict[str, float]:
    """Run `jobs` no-op jobs, at most `window` in flight; returns rates per second, times in µs."""
    ended: list[Finished] = []
    loop = asyncio.get_running_loop()
    done, next_job, warm = loop.create_future(), 0, asyncio.Event()

    def job(number: int) -> Job:
        return Job(f"bench-{number}", "echo", encode({"value": number}))

    def finished(batch: list[Finished]) -> None:
        nonlocal next_job
        ended.extend(batch)
        warm.set()
        last = min(jobs, next_job + len(batch))
        if last > next_job > 0:
            executor.submit(prepared[next_job:last])
            next_job = last
        if len(ended) == jobs:
            done.set_result(None)

    with tempfile.TemporaryDirectory() as folder:
        executor = Executor(
            slots=slots,
            folder=Path(folder) / "workers",
            on_started=lambda job: None,
            on_finished=finished,
            on_progress=lambda job, *told: None,
        )
        start = time.perf_counter()
        await executor.start()
        ready_ms = (time.perf_counter() - start) * 1000
        idle_pss_mb = pss_mb(executor._pool.workers[0].pid)
        executor.submit([job(-1)] * 10)  # loads the kind, measures its run time
        while len(ended) < 10:
            await asyncio.wait_for(warm.wait(), 30)
            warm.clear()
        ended.clear()
        prepared = [job(number) for number in range(jobs)]
        start, cpu = time.perf_counter(), time.process_time()
        next_job = min(window, jobs)
        executor.submit(prepared[:next_job])
        await done
        took_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
        await executor.stop(1.0)
    for end in ended:
        if not end.ok or decode_any(end.result) != {"value": int(end.job.id.removeprefix("bench-"))}:
            raise SystemExit(f"wrong result: {end}")
    return {
        "jobs_per_s": jobs / took_s,
        "daemon_cpu_us": cpu_s / jobs * 1e6,
        "run_us": median(end.ran_s for end in ended) * 1e6,
        "ready_ms": ready_ms,
        "idle_pss_mb": idle_pss_mb,
    }


def main() -> None:
    """Print one line per event loop and window."""
    import uvloop

    jobs = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    slots = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    for name, run in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
        for window in (1, 64, 512):
            figures = run(measure(jobs if window > 1 else jobs // 10, slots, window))
            print(f"{name:8} window {window:4}", {key: round(value, 1) for key, value in figures.items()})


if __name__ == "__main__":
    main()
