"""An executor with real worker processes, and a recorder of its callbacks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.messages import decode_any, encode
from node.executor.executor import Executor, Finished, Job


class Watcher:
    """Records the callbacks of an executor, and waits for them."""

    def __init__(self) -> None:
        self.ended: dict[str, Finished] = {}
        self.twice, self.started, self.called_back = [], [], []
        self.progress: list[tuple[str, float, str]] = []
        self.news = asyncio.Event()

    def on_started(self, job: Job) -> None:
        self.started.append(job.id)
        self.news.set()

    def on_called_back(self, job: Job) -> None:
        assert self.started.count(job.id) == self.called_back.count(job.id) + 1
        self.called_back.append(job.id)
        self.news.set()

    def on_finished(self, batch: list[Finished]) -> None:
        for end in batch:
            if end.job.id in self.ended:
                self.twice.append(end.job.id)
            self.ended[end.job.id] = end
        self.news.set()

    def on_progress(self, job: Job, fraction: float, note: str, text: str, text_from: int) -> None:
        self.progress.append((job.id, fraction, note))
        self.news.set()

    async def until(self, condition, within_s: float = 30.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def end_of(self, *ids: str) -> list[Finished]:
        await self.until(lambda: all(job_id in self.ended for job_id in ids))
        assert not self.twice
        return [self.ended[job_id] for job_id in ids]


@asynccontextmanager
async def executor_of(tmp_path: Path, slots: int = 2, fault_kinds: bool = True):
    watcher = Watcher()
    executor = Executor(
        slots=slots,
        folder=tmp_path / "workers",
        fault_kinds=fault_kinds,
        on_started=watcher.on_started,
        on_finished=watcher.on_finished,
        on_progress=watcher.on_progress,
        on_called_back=watcher.on_called_back,
    )
    await executor.start()
    try:
        yield executor, watcher
    finally:
        pids = [worker.pid for worker in executor._pool.all_workers()]
        await executor.stop(0.0)
        assert not [pid for pid in pids if alive(pid)]


def echo(id: str, *, cores: int = 1, timeout_s: float = 0.0, memory_mb: int = 512, **payload) -> Job:
    return Job(id, "echo", encode(payload) if payload else b"", cores, timeout_s, memory_mb, token=object())


async def warmed(executor: Executor, watcher: Watcher) -> None:
    """Run many echoes, so that the executor knows their run time and dispatches them in batches."""
    ids = [f"w{number}" for number in range(200)]
    executor.submit([echo(job_id) for job_id in ids])
    await watcher.end_of(*ids)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def seen(condition, within_s: float = 30.0) -> None:
    """Poll until a condition outside this process holds: no event announces it here."""
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


def value_of(end: Finished):
    assert end.ok, end.error
    return decode_any(end.result)
