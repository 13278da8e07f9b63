"""Cancelling jobs of the executor, with real worker processes: waiting, running, recalled, and one of two copies."""

from __future__ import annotations

from tests.integration.executor_harness import echo, executor_of, value_of, warmed


async def test_cancelling_a_waiting_a_running_and_an_unknown_job(tmp_path):
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        jobs = [echo("running", hang=True), echo("waiting", value=1), echo("last", value=2)]
        executor.submit(jobs)
        await watcher.until(lambda: "running" in watcher.started)
        assert executor.cancel(jobs[1].token) and executor.cancel(jobs[0].token) and not executor.cancel(object())
        waiting, running, last = await watcher.end_of("waiting", "running", "last")
        assert waiting.error.code == running.error.code == "cancelled"
        assert value_of(last) == {"value": 2} and "waiting" not in watcher.started


async def test_of_two_jobs_of_one_task_only_the_one_that_is_meant_is_cancelled(tmp_path):
    """A task that was sent twice came to one node twice: the return of the copy that waited ended the run."""
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        running, copy = echo("twice", sleep_s=0.5, value=1), echo("twice", sleep_s=0.5, value=1)
        executor.submit([running, copy])
        await watcher.until(lambda: watcher.started)
        assert executor.cancel(copy.token)
        await watcher.until(lambda: watcher.ended)
        first = watcher.ended.pop("twice")
        assert first.job is copy and first.error.code == "cancelled"
        second = (await watcher.end_of("twice"))[0]
        assert second.job is running and value_of(second) == {"value": 1}


async def test_jobs_behind_a_long_one_are_recalled_and_can_be_cancelled(tmp_path):
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        await warmed(executor, watcher)
        small = [echo(f"s{number}") for number in range(20)]
        executor.submit([echo("long", sleep_s=0.5), *small])
        await watcher.until(lambda: watcher.called_back)
        assert "long" not in watcher.called_back and set(watcher.called_back) <= set(watcher.started)
        assert executor.cancel(small[19].token) and len(executor._waiting) >= len(watcher.called_back) - 1
        ends = await watcher.end_of("long", *(f"s{number}" for number in range(20)))
        assert [end.error.code for end in ends if not end.ok] == ["cancelled"]
