"""The executor with real worker processes: results, limits, crashes, and lifetimes of processes."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

import node
from mesh.errors import CannotStart
from mesh.messages import CLAIM_CHECK_BYTES, decode_any, encode
from node.executor import limits
from node.executor.executor import STEADY_AFTER_S, Job
from node.workloads.echo import filler
from tests.integration.executor_harness import alive, echo, executor_of, seen, value_of, warmed

CODE = Path(node.__path__[0]).parent


async def test_a_value_is_returned_with_its_times_and_token(tmp_path):
    async with executor_of(tmp_path) as (executor, watcher):
        token = object()
        executor.submit([Job("a", "echo", encode({"value": {"x": [1, "ü"]}}), token=token), Job("b", "echo")])
        first, second = await watcher.end_of("a", "b")
        assert value_of(first) == {"value": {"x": [1, "ü"]}} and value_of(second) == {"value": None}
        assert first.job.token is token and first.started_at > 1e9 and 0 < first.ran_s < 10
        assert watcher.started == ["a", "b"]
        assert (executor.free_cores, len(executor._waiting), executor.running) == (2, 0, 0)


async def test_five_thousand_small_jobs_each_get_their_own_result(tmp_path):
    ids = [f"j{number}" for number in range(5000)]
    async with executor_of(tmp_path) as (executor, watcher):
        executor.submit([echo(job_id, value=job_id) for job_id in ids])
        ends = await watcher.end_of(*ids)
        assert [value_of(end)["value"] for end in ends] == ids


async def test_input_faults_are_named_and_not_retried(tmp_path):
    async with executor_of(tmp_path, fault_kinds=False) as (executor, watcher):
        executor.submit([echo("bad", sleep_s=-1, seed="x", nope=1), echo("refused", fail="no")])
        executor.submit([Job("unknown", "does_not_exist")])
        bad, refused, unknown = await watcher.end_of("bad", "refused", "unknown")
        assert bad.error.code == refused.error.code == "bad_input" and not bad.error.retryable
        assert {name for name, _ in bad.error.faults} == {"payload.sleep_s", "payload.seed", "payload.nope"}
        assert refused.error.faults[0][0] == "payload.fail"
        assert unknown.error.code == "unknown_kind"


async def test_a_failing_job_says_why_and_its_worker_goes_on(tmp_path):
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        [worker] = executor._pool.workers
        executor.submit([echo("fails", fail="as ordered"), echo("after", value=1)])
        failed, after = await watcher.end_of("fails", "after")
        assert failed.error.code == "failed" and failed.error.retryable and "as ordered" in failed.error.message
        assert value_of(after) == {"value": 1} and executor._pool.workers == [worker]


@pytest.mark.parametrize("how, reason", [("exit", "70"), ("segv", "SIGSEGV"), ("kill", "SIGKILL")])
async def test_a_crash_ends_its_job_and_no_other(tmp_path, how, reason):
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        warm = [f"w{number}" for number in range(5)]
        executor.submit([echo(job_id) for job_id in warm])
        await watcher.end_of(*warm)
        before = [f"b{number}" for number in range(20)]
        after = [f"a{number}" for number in range(20)]
        jobs = [echo(job_id, value=job_id) for job_id in before + after]
        executor.submit([*jobs[:20], echo("crash", crash=how), *jobs[20:]])
        ends = await watcher.end_of(*before, "crash", *after)
        crash = ends.pop(len(before))
        assert crash.error.code == "crashed" and reason in crash.error.message
        assert [value_of(end)["value"] for end in ends] == before + after
        assert executor.free_cores == 1


async def test_a_job_past_its_time_limit_is_stopped_and_the_others_go_on(tmp_path):
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        executor.submit([echo("hang", hang=True, timeout_s=0.3), echo("next", value=2)])
        hang, after = await watcher.end_of("hang", "next")
        assert hang.error.code == "timeout" and "0.3 s" in hang.error.message
        assert 0.3 < hang.ran_s < 5 and value_of(after) == {"value": 2}


@pytest.mark.parametrize("greed", [{"leak_mb": 1 << 20}, {"size_bytes": 1 << 30}], ids=["leak", "at once"])
async def test_too_much_memory_ends_the_job_and_the_daemon_goes_on(tmp_path, greed):
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        executor.submit([echo("greedy", memory_mb=100, timeout_s=60, **greed), echo("next", value=3)])
        greedy, after = await watcher.end_of("greedy", "next")
        assert greedy.error.code == "memory" and "100 MB" in greedy.error.message
        assert value_of(after) == {"value": 3}


async def test_small_jobs_do_not_wait_behind_one_that_turns_out_long(tmp_path):
    async with executor_of(tmp_path, slots=2) as (executor, watcher):
        await warmed(executor, watcher)
        small = [f"s{number}" for number in range(40)]
        jobs = [echo(job_id, value=job_id) for job_id in small]
        executor.submit([*jobs[:20], long := echo("long", hang=True), *jobs[20:]])
        ends = await watcher.end_of(*small)
        assert [value_of(end)["value"] for end in ends] == small and "long" not in watcher.ended
        assert executor.cancel(long.token)
        assert (await watcher.end_of("long"))[0].error.code == "cancelled"


async def test_a_long_job_past_its_time_limit_is_stopped(tmp_path):
    """Long jobs are checked less often."""
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        executor.submit([echo("slow", sleep_s=30, timeout_s=STEADY_AFTER_S + 0.5), echo("next", value=1)])
        slow, _ = await watcher.end_of("slow", "next")
        assert slow.error.code == "timeout" and STEADY_AFTER_S + 0.5 <= slow.ran_s < 20


async def test_a_wide_job_gets_all_cores_in_its_turn(tmp_path):
    async with executor_of(tmp_path, slots=2) as (executor, watcher):
        jobs = [echo("n1", sleep_s=0.05), echo("n2", sleep_s=0.05), echo("wide", cores=2, sleep_s=0.1)]
        executor.submit([*jobs, echo("n3", value=1)])
        ends = {end.job.id: end for end in await watcher.end_of("n1", "n2", "wide", "n3")}
        wide = ends["wide"]
        assert all(end.ok for end in ends.values())
        assert max(ends[job_id].started_at + ends[job_id].ran_s for job_id in ("n1", "n2")) <= wide.started_at + 0.005
        assert ends["n3"].started_at + 0.005 >= wide.started_at + wide.ran_s


async def test_large_results_are_written_to_a_file(tmp_path):
    async with executor_of(tmp_path) as (executor, watcher):
        size = CLAIM_CHECK_BYTES * 3
        value = "x" * size
        jobs = [echo("bytes", size_bytes=size, seed=5), echo("value", value=value)]
        executor.submit([*jobs, echo("small", size_bytes=100, seed=5)])
        raw, large, small = await watcher.end_of("bytes", "value", "small")
        assert raw.result == b"" and raw.result_file.read_bytes() == filler(5, size)
        assert raw.content_type == "application/octet-stream" and raw.info == {"value": None, "seed": 5}
        assert large.content_type == "" and decode_any(large.result_file.read_bytes()) == {"value": value}
        assert small.result_file is None and value_of(small) == filler(5, 100)


async def test_progress_is_reported_while_a_job_runs(tmp_path):
    async with executor_of(tmp_path) as (executor, watcher):
        executor.submit([echo("slow", sleep_s=2.5)])
        await watcher.until(lambda: watcher.progress)
        assert "slow" not in watcher.ended
        assert watcher.progress[0][0::2] == ("slow", "sleeping") and 0 <= watcher.progress[0][1] < 1


async def test_stop_returns_the_jobs_that_did_not_end(tmp_path):
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        executor.submit([echo("ends", sleep_s=0.2), echo("waits")])
        await watcher.until(lambda: "ends" in watcher.started)
        # `stop` returns when the running job ends. Its limit is for jobs that don't: on a busy machine, a new worker
        # loads its libraries for seconds before the 0.2 s begin.
        left = await executor.stop(200.0)
        assert [job.id for job in left] == ["waits"] and watcher.ended["ends"].ok


async def test_ctrl_c_and_sigterm_do_not_reach_workers(tmp_path):
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        [worker] = executor._pool.workers
        executor.submit([echo("sleeps", sleep_s=0.3)])
        await watcher.until(lambda: "sleeps" in watcher.started)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.killpg(worker.pid, number)
        assert (await watcher.end_of("sleeps"))[0].ok


@pytest.mark.parametrize("program", ["/nonexistent/python", "/bin/false"])
async def test_workers_that_can_not_start_are_one_clear_error(tmp_path, monkeypatch, program):
    monkeypatch.setattr(sys, "executable", program)
    with pytest.raises(CannotStart, match="No worker process"):
        async with executor_of(tmp_path):
            pass


async def test_a_worker_killed_while_idle_is_replaced(tmp_path):
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        [worker] = executor._pool.workers
        os.kill(worker.pid, signal.SIGKILL)
        await worker.gone.wait()
        executor.submit([echo("after", value=1)])
        assert value_of((await watcher.end_of("after"))[0]) == {"value": 1}


def own_kind(tmp_path: Path, monkeypatch, body: str) -> None:
    """Replace `echo` in worker processes by `body`, a workload of the test."""
    stand_in = tmp_path / "stand_in"
    stand_in.mkdir()
    text = "from __future__ import annotations\nimport os, subprocess, sys\ndef run(payload, context):\n"
    (stand_in / "own_kind.py").write_text(text + textwrap.indent(textwrap.dedent(body), "    "))
    hook = f"import sys; sys.path[:0] = [{str(stand_in)!r}, {str(CODE)!r}]\n"
    hook += "import node.executor.context, own_kind\nnode.executor.context.load = lambda kind: own_kind.run\n"
    (stand_in / "sitecustomize.py").write_text(hook)
    monkeypatch.setattr("node.executor.process.code_folder", lambda: stand_in)


async def test_workers_inherit_no_secrets_and_leave_nothing_behind(tmp_path, monkeypatch):
    own_kind(
        tmp_path,
        monkeypatch,
        """
        seen = sorted(os.listdir("."))
        open("left", "w").close()
        os.mkdir("sub")
        helper = subprocess.Popen(["sleep", "1000"])
        here = os.getcwd()
        os.chdir("/")
        nice, stdin = os.nice(0), os.readlink("/proc/self/fd/0")
        return dict(seen=seen, here=here, helper=helper.pid, env=dict(os.environ), nice=nice, stdin=stdin)
        """,
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("QUEZTL_KEY", "secret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    async with executor_of(tmp_path, slots=1) as (executor, watcher):
        executor.submit([echo("one"), echo("two")])
        first, second = map(value_of, await watcher.end_of("one", "two"))
        for seen in (first, second):
            assert seen["seen"] == [] and seen["here"] == seen["env"]["HOME"] == seen["env"]["TMPDIR"]
            assert Path(seen["here"]).is_relative_to(tmp_path)
            assert "secret" not in seen["env"].values() and seen["env"]["LC_ALL"] == "C.UTF-8"
            assert seen["nice"] >= 5 and seen["stdin"] == "/dev/null"
            assert not alive(seen["helper"])


DRIVER = """
import asyncio, sys
from pathlib import Path
from node.executor import process as worker_process
from node.executor.executor import Executor, Job

async def main():
    worker_process.code_folder = lambda: Path(sys.argv[2])
    quiet = lambda *what: None
    executor = Executor(slots=1, folder=Path(sys.argv[1]), on_started=quiet, on_finished=quiet, on_progress=quiet)
    await executor.start()
    executor.submit([Job("forever", "echo")])
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_workers_and_their_helpers_die_with_the_daemon(tmp_path, monkeypatch):
    pids_file = tmp_path / "told"
    own_kind(
        tmp_path,
        monkeypatch,
        f"""
        helper = subprocess.Popen(["sleep", "1000"])
        open({str(pids_file)!r} + ".part", "w").write(f"{{os.getpid()}} {{helper.pid}}")
        os.rename({str(pids_file)!r} + ".part", {str(pids_file)!r})
        helper.wait()
        """,
    )
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "workers"), str(tmp_path / "stand_in")]
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(CODE)})  # noqa: ASYNC220
    try:
        await seen(lambda: pids_file.exists() or driver.poll() is not None)
        worker, helper = map(int, pids_file.read_text().split())
        assert alive(worker) and alive(helper)
    finally:
        driver.kill()
        driver.wait()
    await seen(lambda: not alive(worker) and not alive(helper))


async def test_a_worker_has_no_way_to_more_rights_larger_files_or_files_of_others(tmp_path, monkeypatch):
    own_kind(
        tmp_path,
        monkeypatch,
        """
        import errno, resource
        def tried(path):
            try:
                open(path, "w").close()
                return "written"
            except OSError as error:
                return errno.errorcode[error.errno]
        status = dict(line.split(":", 1) for line in open("/proc/self/status"))
        if payload.value == "large":
            with open("large", "wb") as file:
                file.truncate(resource.getrlimit(resource.RLIMIT_FSIZE)[0] + 1)
        return dict(
            new_rights=int(status["NoNewPrivs"]), core=resource.getrlimit(resource.RLIMIT_CORE),
            file=resource.getrlimit(resource.RLIMIT_FSIZE), files=resource.getrlimit(resource.RLIMIT_NOFILE),
            own=tried("own"), other=tried(payload.value), device=tried("/dev/null"),
            child=subprocess.run(["sh", "-c", f"echo x > {payload.value}"], stderr=subprocess.DEVNULL).returncode,
        )
        """,
    )
    # Not in tmp_path, which may be in /dev/shm, where a worker may write.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as other:
        outside = Path(other) / "identity.json"
        outside.write_text("kept")
        async with executor_of(tmp_path, slots=1) as (executor, watcher):
            executor.submit([echo("tries", value=str(outside)), echo("writes", value="large")])
            tries, writes = await watcher.end_of("tries", "writes")
        text = outside.read_text()
    found = value_of(tries)
    assert found["new_rights"] == 1 and list(found["core"]) == [0, 0] and list(found["files"]) == [4096, 4096]
    soft, hard = found["file"]
    assert soft == hard <= limits.LARGEST_FILE_BYTES
    assert (found["own"], found["device"]) == ("written", "written")
    assert writes.error.code == "file_too_large" and "larger file" in writes.error.message
    if landlock_is_there():
        assert found["other"] == "EACCES" and found["child"] != 0
        assert text == "kept"


def landlock_is_there() -> bool:
    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 2
