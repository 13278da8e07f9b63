"""Measures once how fast this machine runs each kind, while the node is idle.

After the node has held no task for a while, the calibrator runs the kind's probe in a worker process of an executor of
its own, so that neither the node's workers nor their run times are affected. A task that arrives ends the probe at once
(its worker is killed); the probe is repeated when the node is idle again.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from mesh import data_folder
from mesh.errors import CannotStart
from mesh.kinds.base import KindSpec
from mesh.kinds.table import KINDS
from mesh.lanes import cores_for
from mesh.messages import encode
from mesh.supervision import every
from node.context import NodeContext
from node.executor.executor import Executor
from node.executor.jobs import Finished, Job
from node.identity import calibration
from node.version import version

log = logging.getLogger(__name__)

CHECK_EVERY_S = 0.25
#: Runs of a probe. The first one loads libraries; the fastest of the others counts.
RUNS = 4
TIMEOUT_S = 60.0
#: A run of this length is the last one: on so slow a machine one figure is enough, seconds.
LONG_S = 3.0


class Calibrator:
    """Measures the kinds that have no known speed."""

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
        """`specs`: the kinds that can be measured here; `circumstances(spec)`: see `calibration.circumstances`.

        `seconds`: kind -> known run time of its probe, which the calibrator extends; `publish()` is awaited after each
        extension. `held` is set while the node holds tasks. `idle_s`: how long it must have held none; 0: measure
        nothing.
        """
        self.seconds = seconds
        self._measurable = len(specs)
        self._missing = [spec for spec in specs if spec.name not in seconds]
        self._circumstances, self._slots, self._folder = circumstances, slots, folder
        self._idle_s, self._held, self._publish = idle_s, held, publish
        self._idle_since: float | None = None

    async def run(self) -> None:
        """Until every kind has been measured or has failed."""
        if not self._missing or not self._idle_s:
            return
        await self._until_idle()
        count = len(self._missing)
        log.info("measuring how fast this machine runs each kind (%d of %d to measure)", count, self._measurable)
        while self._missing:
            await self._until_idle()
            spec = self._missing[0]
            probing = asyncio.create_task(self._probe(spec), name=f"probe {spec.name}")
            interrupted = asyncio.create_task(self._held.wait(), name="probe interrupted")
            try:
                await asyncio.wait({probing, interrupted}, return_when=asyncio.FIRST_COMPLETED)
                if not probing.done():
                    log.debug("a task arrived: the probe of %s is repeated later", spec.name)
                    self._idle_since = None
                    continue
            finally:
                interrupted.cancel()
                probing.cancel()
                await asyncio.gather(probing, interrupted, return_exceptions=True)
            self._missing.pop(0)
            await self._take(spec, probing.result())
        log.info("measured how fast this machine runs each kind (%d of %d known)", len(self.seconds), self._measurable)

    async def _take(self, spec: KindSpec, seconds: float) -> None:
        if seconds:
            self.seconds[spec.name] = seconds
            calibration.save(spec.name, seconds, self._circumstances(spec), self._folder)
            log.debug("the probe of %s takes %.3g s on this machine", spec.name, seconds)
            await self._publish()

    async def _until_idle(self) -> None:
        """Return when the node has held no task for `idle_s`. Probes that were not interrupted count as idle time."""
        loop = asyncio.get_running_loop()
        if self._idle_since is None:
            self._idle_since = loop.time()
        async for _ in every(CHECK_EVERY_S):
            if self._held.is_set():
                self._idle_since = loop.time()
            elif loop.time() - self._idle_since >= self._idle_s:
                return

    async def _probe(self, spec: KindSpec) -> float:
        """Seconds of the fastest run but the first; 0 when the probe failed."""
        ended: asyncio.Queue[Finished] = asyncio.Queue()
        folder = self._folder / data_folder.MEASURING

        def on_finished(batch: list[Finished]) -> None:
            for end in batch:
                ended.put_nowait(end)

        executor = Executor(
            slots=self._slots,
            folder=folder,
            on_started=lambda job: None,
            on_finished=on_finished,
            on_progress=lambda job, fraction, note, text, text_from: None,
        )
        try:
            await executor.start()
            took: list[float] = []
            for number in range(RUNS):
                executor.submit((self._job(spec, number),))
                end = await ended.get()
                if end.result_file is not None:
                    end.result_file.unlink(missing_ok=True)
                if end.error is not None:
                    log.warning("could not measure how fast this machine runs %s: %s", spec.name, end.error.message)
                    return 0.0
                took.append(end.ran_s)
                if end.ran_s > LONG_S:
                    break
            return min(took[1:] or took)
        except CannotStart as error:
            log.warning("could not measure how fast this machine runs %s: %s", spec.name, error.message)
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


def calibrator_of(context: NodeContext, held: asyncio.Event, publish: Callable[[], Awaitable[None]]) -> Calibrator:
    """The calibrator of a node; it knows the speeds that are stored in the node's data directory."""
    probed, slots, folder = context.capabilities, context.slots, context.data.path
    return Calibrator(
        calibration.measurable(KINDS.values(), probed),
        lambda spec: calibration.circumstances(spec, probed, slots, version()),
        calibration.known(KINDS.values(), probed, slots, version(), folder),
        slots=slots, folder=folder, idle_s=context.config.measure_after_s, held=held, publish=publish,
    )  # fmt: skip
