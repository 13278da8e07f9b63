"""This machine as a place to measure: work runs in a worker process, as on a node, without a mesh."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import msgspec
import psutil  # pyrefly: ignore[untyped-import]  psutil publishes no type stubs

from bench.suite import conditions
from bench.suite.memory_speed import MemorySpeed
from bench.suite.model import Conditions
from bench.suite.place import WorkFailed
from mesh.kinds.table import KINDS, validate
from mesh.lanes import cores_for
from mesh.messages import decode_any, encode
from node.executor.executor import Executor
from node.executor.jobs import Finished, Job
from node.probes.packages import probe_packages

#: Time limit of a repetition, seconds.
TIMEOUT_S = 300.0


class LocalPlace:
    """A worker process that runs one repetition after the other and keeps its libraries and models loaded."""

    def __init__(self, executor: Executor, slots: int, ended: asyncio.Queue[Finished], folder: Path) -> None:
        self._executor, self._slots, self._ended, self._folder = executor, slots, ended, folder
        self._number = 0
        self._before: tuple[float, conditions.Look, float] | None = None
        self._memory_speed, self._memory_gb_s = MemorySpeed(), list[float]()

    async def lacking(self, kind: str) -> str:
        """See Place."""
        (info,), _ = await asyncio.to_thread(probe_packages, [KINDS[kind]], self._folder)
        return "" if info.available else f"{info.reason}: {info.how_to_install}"

    async def begin(self) -> None:
        """See Place."""
        load = await asyncio.to_thread(conditions.load_before)
        self._memory_gb_s.clear()
        self._before = load, conditions.look(), used_s()

    async def end(self) -> Conditions:
        """See Place."""
        assert self._before is not None
        load, before, ours_s = self._before
        found = conditions.judge(load, before, conditions.look(), used_s() - ours_s, os.cpu_count() or 1)
        return msgspec.structs.replace(found, memory_gb_s=tuple(self._memory_gb_s))

    def cores_of(self, kind: str) -> int:
        """The cores that a repetition of `kind` gets."""
        return cores_for({}, KINDS[kind].resources.cores, self._slots)

    async def repeat(self, kind: str, payload: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """See Place."""
        validate(kind, payload)
        spec = KINDS[kind]
        self._number += 1
        job = Job(
            id=f"{kind}-{self._number}",
            kind=kind,
            payload=encode(payload),
            cores=self.cores_of(kind),
            timeout_s=TIMEOUT_S,
            memory_mb=spec.resources.memory_mb,
        )
        with contextlib.suppress(ImportError):  # without NumPy the speed of memory is unknown
            self._memory_gb_s.append(await asyncio.to_thread(self._memory_speed.measure))
        self._executor.submit((job,))
        end = await self._ended.get()
        if end.result_file is not None:
            size = end.result_file.stat().st_size
            end.result_file.unlink(missing_ok=True)
        else:
            size = len(end.result)
        if not end.ok:
            raise WorkFailed(end.error.message if end.error else f"{kind} failed")
        if end.content_type:
            return {**end.info, "result_bytes": size}, end.ran_s
        return dict(decode_any(end.result)), end.ran_s


@contextlib.asynccontextmanager
async def local_place(folder: Path, slots: int) -> AsyncGenerator[LocalPlace]:
    """A worker in `folder`; it ends with the block. Raises: CannotStart."""
    ended: asyncio.Queue[Finished] = asyncio.Queue()

    def take(batch: list[Finished]) -> None:
        for job in batch:
            ended.put_nowait(job)

    executor = Executor(
        slots=slots,
        folder=folder,
        on_started=lambda job: None,
        on_finished=take,
        on_progress=lambda job, *progress: None,
    )
    try:
        await executor.start()
        yield LocalPlace(executor, slots, ended, folder)
    finally:
        await executor.stop(0.0)


def used_s() -> float:
    """CPU seconds of this process and its children, ended ones included."""
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
