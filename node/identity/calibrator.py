"""Measures how fast this machine runs each kind, while the node holds no task and the machine has nothing else to do.

The calibrator runs the kind's probe in a worker process of an executor of its own, so that neither the node's workers
nor their run times are affected. A task that arrives ends the probe at once (its worker is killed); the probe is
repeated when the node is idle again. A figure that was made while others used the machine is thrown away. Each kind is
measured on several occasions, hours apart, and the fastest figure counts.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic

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
from node.probes.usage import MachineUsage
from node.version import version

log = logging.getLogger(__name__)

CHECK_EVERY_S = 0.25
#: Runs of a probe at most. The first one loads libraries; the fastest of the others counts.
RUNS = 4
TIMEOUT_S = 60.0
#: After this much run time the second run, or a later one, is the last: on so slow a machine few are enough, seconds.
ENOUGH_S = 1.0
#: A first run of this length is the only one, seconds.
LONG_S = 3.0
#: Between two probes the machine is left alone for as long as the last one took, and for this long at least, seconds.
PAUSE_S = 1.0
#: A figure counts if the machine is idle for this long right after it, seconds.
CONFIRM_S = 0.5
#: How often each kind is measured, and the time between two occasions, seconds.
OCCASIONS, AGAIN_S = 3, 6 * 3600.0


class Calibrator:
    """Measures the kinds that have no known speed."""

    def __init__(
        self,
        specs: Sequence[KindSpec],
        conditions: Callable[[KindSpec], str],
        seconds: dict[str, float],
        *,
        slots: int,
        folder: Path,
        idle_s: float,
        held: asyncio.Event,
        publish: Callable[[], Awaitable[None]],
        busy_percent: float = 100.0,
        cpu_percent: Callable[[], float] | None = None,
    ) -> None:
        """`specs`: the kinds that can be measured here; `conditions(spec)`: see `calibration.conditions`.

        `seconds`: kind -> known run time of its probe, which the calibrator extends; `publish()` is awaited after each
        change. `held` is set while the node holds tasks. `idle_s`: how long it must have held none; 0: measure nothing.
        The machine is busy above `busy_percent`; `cpu_percent()`: its use since the last call.
        """
        self.seconds = seconds
        self._specs = specs
        self._conditions, self._slots, self._folder = conditions, slots, folder
        self._idle_s, self._held, self._publish = idle_s, held, publish
        self._busy_percent, self._cpu_percent = busy_percent, cpu_percent or MachineUsage().cpu_percent
        self._window_s = idle_s

    async def run(self) -> None:
        """Until every kind has been measured on OCCASIONS occasions, or has failed."""
        if not self._idle_s:
            return
        await self.measure([spec for spec in self._specs if spec.name not in self.seconds])
        while due := calibration.to_repeat(self._specs, self.seconds, OCCASIONS, self._folder):
            await asyncio.sleep(AGAIN_S)
            await self.measure(due)

    async def measure(self, specs: Sequence[KindSpec]) -> None:
        """Measure these kinds once, each when the machine is idle."""
        missing = list(specs)
        if not missing or not self._idle_s:
            return
        self._window_s = self._idle_s
        await self._until_idle()
        count = f"{len(missing)} of {len(self._specs)} to measure"
        log.info("measuring how fast this machine runs each kind (%s)", count)
        while missing:
            await self._until_idle()
            seconds = await self._probe_unless_interrupted(missing[0])
            if seconds is not None:
                await self._take(missing.pop(0), seconds)
        count = f"{len(self.seconds)} of {len(self._specs)} known"
        log.info("measured how fast this machine runs each kind (%s)", count)

    async def _probe_unless_interrupted(self, spec: KindSpec) -> float | None:
        """Seconds, 0 when the probe failed; None when it must be repeated: a task came, or others used the machine."""
        began = monotonic()
        probing = asyncio.create_task(self._probe(spec), name=f"probe {spec.name}")
        interrupted = asyncio.create_task(self._held.wait(), name="probe interrupted")
        try:
            await asyncio.wait({probing, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            if not probing.done():
                log.debug("a task arrived: the probe of %s is repeated later", spec.name)
                self._window_s = self._idle_s
                return None
        finally:
            interrupted.cancel()
            probing.cancel()
            await asyncio.gather(probing, interrupted, return_exceptions=True)
        if self._busy_percent >= 100:
            self._window_s = 0.0  # whatever the machine does, it is measured
            return probing.result()
        self._cpu_percent()
        await asyncio.sleep(CONFIRM_S)
        if (percent := self._cpu_percent()) > self._busy_percent:
            log.debug("others use this machine (%.0f %%): the probe of %s is repeated later", percent, spec.name)
            self._window_s = self._idle_s
            return None
        self._window_s = max(PAUSE_S, monotonic() - began)
        return probing.result()

    async def _take(self, spec: KindSpec, seconds: float) -> None:
        if seconds:
            best = calibration.save(spec.name, seconds, self._conditions(spec), self._folder)
            self.seconds[spec.name] = best
            log.debug("the probe of %s takes %.3g s on this machine (best: %.3g s)", spec.name, seconds, best)
            await self._publish()

    async def _until_idle(self) -> None:
        """Return when the node has held no task, and the machine was not busy, for the present window."""
        window_s, began = self._window_s, monotonic()
        self._cpu_percent()
        async for _ in every(CHECK_EVERY_S):
            now = monotonic()
            if self._held.is_set():
                began = now
                self._cpu_percent()
            elif now - began >= window_s:
                if (percent := self._cpu_percent()) <= self._busy_percent:
                    return
                log.debug("the machine is busy (%.0f %%): its speeds are measured later", percent)
                began = now

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
                if end.ran_s > LONG_S or (number and sum(took) > ENOUGH_S):
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
        lambda spec: calibration.conditions(spec, probed, slots, version()),
        calibration.known(KINDS.values(), probed, slots, version(), folder),
        slots=slots, folder=folder, idle_s=context.config.measure_after_s, held=held, publish=publish,
        busy_percent=context.config.measure_below_percent,
    )  # fmt: skip
