"""Keeps forecasts current while a node leads: reads the history, has fits made, and keeps their results.

What is due and what is in force is decided in `fitting`; the history is `history`. A fit runs in a child process
(`child.py`), one at a time, which is killed with everything it started when its time is over or the term ends. Nothing
here can stop the controller: a problem is reported, and decisions without a forecast are reactive.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from mesh import child_process, subjects
from mesh.bus.client import Bus
from mesh.bus.pages import read_page
from mesh.decoding import Unreadable
from mesh.errors import QueztlError
from mesh.kinds.base import Resources
from mesh.leader.metrics import decode_sample
from scaling.domain.config import REACTIVE
from scaling.domain.model import Forecast
from scaling.domain.units import WEEK_S
from scaling.forecast import fitting
from scaling.forecast.fitting import FitContext, FitKey, FitRequest, FitResult, StoredFit
from scaling.forecast.history import History
from scaling.forecast.prophet import HOW_TO_INSTALL, child_environment
from scaling.observation.collect import Cycle

log = logging.getLogger(__name__)
#: The history is read this often should no sample be announced, and this long after one, for its siblings, seconds.
READ_S, SETTLE_S = 60.0, 0.5
#: Numerical libraries take one core, not all of the node's.
ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: The niceness of the child: the work of the node comes first.
NICENESS = 10
#: The child's command; its time limit in seconds follows.
COMMAND = (sys.executable, "-P", "-m", "scaling.forecast.child")


class Forecaster:
    """The forecasts of one term as leader; `run()` is cancelled when it ends."""

    def __init__(
        self, bus: Bus, resources: Mapping[str, Resources], clock: Callable[[], float], command: Sequence[str] = COMMAND
    ) -> None:
        """`resources`: kind -> what a task takes; `clock`: Unix seconds; `command`: makes the fits."""
        self._bus, self._resources, self._clock, self._command = bus, resources, clock, tuple(command)
        self._history, self._last_sequence = History(), 0
        self._context: FitContext | None = None
        self._changed = asyncio.Event()
        self._last_fit: FitKey | None = None
        self._stored: dict[str, StoredFit] = {}
        self._took_s, self._rest_until = 0.0, float("-inf")
        self.problem = ""
        """What is wrong with the last fit, in words; "" for nothing."""

    def forecasts(self, cycle: Cycle) -> dict[str, Forecast]:
        """pool -> its forecast for this cycle's decision. The cycle is also what the next fits are made for."""
        before, self._context = self._context, fitting.fit_context(cycle.snapshot, cycle.offers, cycle.config)
        if before is None or _essence(before) != _essence(self._context):
            self._changed.set()
        return fitting.current_forecasts(self._stored, self._context, cycle.now)

    def document(self, now: float) -> dict[str, dict[str, Any]]:
        """pool -> its forecast as people are shown it; empty before the first `forecasts`."""
        if self._context is None:
            return {}
        return fitting.document(self._stored, self._context, self._history, self.problem, now)

    async def run(self) -> None:
        """Fit whenever a fit is due, until it is cancelled; the child ends with it."""
        # Only a hint: without the bus right now, the history is read a little later.
        samples = await self._bus.subscribe(subjects.METRICS_SUBJECTS[0], lambda _: self._changed.set(), wait=False)
        try:
            while True:
                self._changed.clear()
                try:
                    await self._step()
                except QueztlError as error:
                    self.problem = f"the history can't be read: {error.message}"
                except Exception as error:
                    # A bug in a forecast must not stop the decisions.
                    self.problem = f"no forecast was made: {' '.join(str(error).split()) or type(error).__name__}"
                    log.warning("forecast: %s", error, exc_info=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READ_S):
                        await self._changed.wait()
                    await asyncio.sleep(SETTLE_S)
        finally:
            await samples.close()

    async def _step(self) -> None:
        context = self._context
        if context is None or context.config.mode == REACTIVE:
            return
        await self._read(context.config.history_weeks * WEEK_S)
        now = self._clock()
        key = fitting.due_fit(self._history, context, self._last_fit, now)
        if key is None or now < self._rest_until:
            return
        self._last_fit = key
        if importlib.util.find_spec("numpy") is None:
            self.problem = f"numpy is not installed ({HOW_TO_INSTALL})"
            return
        # In a thread: weeks of minutes take a tenth of a second. Nothing else touches the history meanwhile.
        requests = await asyncio.to_thread(
            fitting.fit_requests, self._history, key, context, self._resources, self._took_s, now
        )
        if not requests:
            return
        results, self.problem = await self._fit(requests, context.config.forecast_limit_s)
        ended_at = self._clock()
        self._took_s, self._rest_until = ended_at - now, ended_at + (ended_at - now) * fitting.REST
        _, end, step_s = key.within
        self._stored |= {result.pool: StoredFit(result, end, step_s, key.target, ended_at) for result in results}
        if self.problem:
            log.warning("forecast: %s", self.problem)

    async def _read(self, keep_s: float) -> None:
        """Add the samples that METRICS received since the last call. Raises: BusUnavailable, ApiError."""
        info = await self._bus.stream_info(subjects.METRICS)
        if info.last_sequence < self._last_sequence:  # the stream was created anew
            self._history, self._last_sequence = History(), 0
        more, oldest = True, self._clock() - keep_s
        while more:
            page, more = await read_page(self._bus, subjects.METRICS, subjects.METRICS_SUBJECTS[0], self._last_sequence)
            for message in page:
                self._last_sequence = message.sequence
                sample = decode_sample(message.data)
                if not isinstance(sample, Unreadable) and sample.at > oldest:
                    self._history.add(sample, self._clock())
        self._history.forget(oldest)

    async def _fit(self, requests: Sequence[FitRequest], limit_s: float) -> tuple[list[FitResult], str]:
        """(the results that the child returned in time, what went wrong or "")"""
        child = await child_process.start(
            *self._command, f"{limit_s:g}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=child_environment() | ONE_CORE, niceness=NICENESS,
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        errors = asyncio.create_task(child.stderr.read(), name="stderr of the forecast's child")
        results: list[FitResult] = []
        try:
            async with asyncio.timeout(limit_s):
                with contextlib.suppress(ConnectionError):  # it ended before it read everything: its stderr says why
                    child.stdin.write(b"".join(msgspec.json.encode(request) + b"\n" for request in requests))
                    await child.stdin.drain()
                child.stdin.close()
                async for line in child.stdout:
                    results.append(msgspec.json.decode(line, type=FitResult))  # noqa: PERF401 (kept at a timeout)
                code, lines = await child.wait(), (await errors).decode(errors="replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), f"it ended with exit code {code}")
            return results, f"the fit failed: {last}" if code else ""
        except TimeoutError:
            return results, f"the fit took longer than {limit_s:g} s and was stopped"
        finally:
            errors.cancel()
            child_process.kill(child)  # with whatever Prophet started
            await child.wait()


def _essence(context: FitContext) -> tuple[object, ...]:
    """The part of a context whose change makes another fit worthwhile."""
    return context.config.mode, fitting.capacity_target_of(context.config), sorted(context.pools)
