"""This machine as a place to measure: a kind's work in a worker process, as a node would run it, without any mesh."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil

from bench.suite import conditions
from bench.suite.model import Conditions
from bench.suite.place import WorkFailed
from bench.suite.yardstick import Yardstick
from mesh.kinds.table import KINDS, validate
from mesh.lanes import cores_for
from mesh.messages import decode_any, encode
from node.executor.executor import Executor
from node.executor.jobs import Finished, Job
from node.probes.packages import probe_packages

#: A repetition that takes longer has hung.
TIMEOUT_S = 300.0


class LocalPlace:
    """A worker process that does one repetition after the other, its libraries and models kept loaded."""

    def __init__(self, executor: Executor, slots: int, ended: asyncio.Queue[Finished], folder: Path) -> None:
        self._executor, self._slots, self._ended, self._folder = executor, slots, ended, folder
        self._number = 0
        self._before: tuple[float, conditions.Look, float] | None = None
        self._yardstick, self._memory_gb_s = Yardstick(), list[float]()

    async def lacking(self, kind: str) -> str:
        """Why `kind` can't be run here, and the command that helps; "" when it can."""
        (info,), _ = await asyncio.to_thread(probe_packages, [KINDS[kind]], self._folder)
        return "" if info.available else f"{info.reason}: {info.how_to_install}"

    async def begin(self) -> None:
        """The figures begin: look at the machine."""
        load = await asyncio.to_thread(conditions.load_before)
        self._memory_gb_s.clear()
        self._before = load, conditions.look(), used_s()

    async def end(self) -> Conditions:
        """What the machine was like since `begin`."""
        assert self._before is not None
        load, before, ours_s = self._before
        found = conditions.judge(load, before, conditions.look(), used_s() - ours_s, os.cpu_count() or 1)
        return msgspec.structs.replace(found, memory_gb_s=tuple(self._memory_gb_s))

    def cores_of(self, kind: str) -> int:
        """How many cores a repetition of `kind` is given."""
        return cores_for({}, KINDS[kind].resources.cores, self._slots)

    async def repeat(self, kind: str, payload: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """(the result, or the info of a result that is bytes, seconds in the worker).

        Raises: QueztlError when the payload is refused; WorkFailed when the work fails.
        """
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
        with contextlib.suppress(ImportError):  # without NumPy it is not known
            self._memory_gb_s.append(await asyncio.to_thread(self._yardstick.measure))
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
async def local_place(folder: Path, slots: int) -> AsyncIterator[LocalPlace]:
    """A worker in `folder`, ended with the block. Raises: CannotStart."""
    ended: asyncio.Queue[Finished] = asyncio.Queue()

    def take(batch: list[Finished]) -> None:
        for one in batch:
            ended.put_nowait(one)

    executor = Executor(
        slots=slots,
        folder=folder,
        on_started=lambda job: None,
        on_finished=take,
        on_progress=lambda job, *told: None,
    )
    try:
        await executor.start()
        yield LocalPlace(executor, slots, ended, folder)
    finally:
        await executor.stop(0.0)


def used_s() -> float:
    """CPU seconds of this process and all it started, ended ones counted."""
    total = 0.0
    me = psutil.Process()
    for one in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
