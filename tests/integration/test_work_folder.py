"""The working folder of the workers, when somebody else removes it or parts of it."""

from __future__ import annotations

import shutil

import pytest

from mesh.messages import CLAIM_CHECK_BYTES
from tests.integration.executor_harness import echo, executor_of, seen


@pytest.mark.parametrize("removed", ["all", "folder", "log"])
async def test_work_goes_on_when_its_folder_is_removed(tmp_path, removed):
    """A program that tidies up did it: no job was run any more, and no line said so."""
    workers = tmp_path / "workers"
    async with executor_of(tmp_path) as (executor, watcher):
        executor.submit([echo("busy", sleep_s=0.3), echo("before", value=1)])
        await watcher.end_of("before")
        await seen(lambda: not executor._pool.starting)  # a worker that starts meanwhile would fill the folder again
        [folder, *_] = sorted(workers.glob("worker-?"))
        match removed:
            case "all":
                shutil.rmtree(workers)
            case "folder":
                shutil.rmtree(folder)
            case "log":
                folder.with_suffix(".log").unlink()
        executor.submit([echo("soon", value=2)])
        await watcher.end_of("soon", "busy")
        executor.submit([echo(f"large{number}", size_bytes=2 * CLAIM_CHECK_BYTES) for number in range(4)])
        ends = await watcher.end_of(*(f"large{number}" for number in range(4)))
        assert all(end.ok and end.result_file.stat().st_size > CLAIM_CHECK_BYTES for end in ends)
