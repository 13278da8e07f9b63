"""Measures how fast this machine does each kind, once, while nobody wants anything of it.

It waits until the node has held no work for a while, then runs the kind's probe in a worker process of an executor of
its own, so that neither the node's workers nor their run times know of it. Work that comes ends the probe at once
(its worker is killed), and the next idle while is waited for.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from mesh.errors import CannotStart
from mesh.kinds.base import KindSpec
from mesh.lanes import cores_for
from mesh.messages import encode
from mesh.supervision import every
from node.executor.executor import Executor
from node.executor.jobs import Finished, Job
from node.identity import calibration

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.25
#: The first run loads libraries; of the others the fastest counts.
RUNS = 4
TIMEOUT_S = 60.0
#: After a run of this length no other one follows: a machine so slow is known well enough.
LONG_S = 3.0


class Calibrator:
    """`seconds` is what is known, kind -> seconds of its probe; `publish()` is awaited whenever that has grown."""

    def __init__(
        self,
        specs: Sequence[KindSpec],
        circumstances: Callable[[KindSpec], str],
        seconds: dict[str, float],
        *,
        slots: int,
        folder: Path,
        idle_s: float,
        held: asyncio.Event,
        publish: Callable[[], Awaitable[None]],
    ) -> None:
        self.seconds = seconds
        self._missing = [spec for spec in specs if spec.name not in seconds]
        self._circumstances, self._slots, self._folder = circumstances, slots, folder
        self._idle_s, self._held, self._publish = idle_s, held, publish
        self._quiet_since: float | None = None

    async def run(self) -> None:
        """Until every kind is measured, or can't be. With `idle_s` 0 nothing is measured."""
        while self._missing and self._idle_s:
            await self._idle()
            spec = self._missing[0]
            probing = asyncio.create_task(self._probe(spec), name=f"probe {spec.name}")
            wanted = asyncio.create_task(self._held.wait(), name="work came")
            try:
                await asyncio.wait({probing, wanted}, return_when=asyncio.FIRST_COMPLETED)
                if not probing.done():
                    log.debug("work came: %s is measured later", spec.name)
                    self._quiet_since = None
                    continue
            finally:
                wanted.cancel()
                probing.cancel()
                await asyncio.gather(probing, wanted, return_exceptions=True)
            self._missing.pop(0)
            await self._take(spec, probing.result())

    async def _take(self, spec: KindSpec, seconds: float) -> None:
        if seconds:
            self.seconds[spec.name] = seconds
            calibration.keep(spec.name, seconds, self._circumstances(spec), self._folder)
            log.info("%s: its probe takes %.3g s here", spec.name, seconds)
            await self._publish()

    async def _idle(self) -> None:
        """Until no work was held for `idle_s`; a probe that was not disturbed is no work."""
        loop = asyncio.get_running_loop()
        if self._quiet_since is None:
            self._quiet_since = loop.time()
        async for _ in every(LOOK_EVERY_S):
            if self._held.is_set():
                self._quiet_since = loop.time()
            elif loop.time() - self._quiet_since >= self._idle_s:
                return

    async def _probe(self, spec: KindSpec) -> float:
        """Seconds of the fastest run but the first; 0 when the kind can't be measured."""
        ended: asyncio.Queue[Finished] = asyncio.Queue()
        folder = self._folder / "measuring"
        executor = Executor(
            slots=self._slots,
            folder=folder,
            on_started=lambda job: None,
            on_finished=lambda batch: [ended.put_nowait(end) for end in batch] and None,
            on_progress=lambda job, *told: None,
        )
        try:
            await executor.start()
            took: list[float] = []
            for number in range(RUNS):
                executor.submit((self._job(spec, number),))
                end = await ended.get()
                if end.result_file is not None:
                    end.result_file.unlink(missing_ok=True)
                if not end.ok:
                    log.warning("%s could not be measured: %s", spec.name, end.error and end.error.message)
                    return 0.0
                took.append(end.ran_s)
                if end.ran_s > LONG_S:
                    break
            return min(took[1:] or took)
        except CannotStart as error:
            log.warning("%s could not be measured: %s", spec.name, error.message)
            return 0.0
        finally:
            await executor.stop(0.0)
            shutil.rmtree(folder, ignore_errors=True)

    def _job(self, spec: KindSpec, number: int) -> Job:
        return Job(
            id=f"probe-{spec.name}-{number}",
            kind=spec.name,
            payload=encode(spec.probe),
            cores=cores_for({}, spec.resources.cores, self._slots),
            timeout_s=TIMEOUT_S,
            memory_mb=spec.resources.memory_mb,
        )
