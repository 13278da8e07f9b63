"""The load to come, while a node is master: the loop that reads the history, has it fitted and keeps what was found.

What is due and what holds is decided in `fitting`, the history is `history`; a fit is made by a child process
(`child.py`), one at a time, that is killed with everything it started when its time is over or the term ends.
Nothing here can stop the controller: what goes wrong is said, and decisions without a forecast are reactive.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mesh import subjects
from mesh.bus.pages import read_page
from mesh.errors import QueztlError
from mesh.kinds.base import Resources
from mesh.leader.metrics import decode_sample
from scaling.domain.model import Forecast
from scaling.forecast import fitting
from scaling.forecast.fitting import Asked, Due, Fit, Kept, Looked
from scaling.forecast.history import History
from scaling.forecast.prophet import HOW_TO_INSTALL, environment

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from scaling.observation.collect import Cycle

log = logging.getLogger(__name__)
#: The history is looked at this often should no sample be heard, and so soon after one, for its siblings to come.
LOOK_S, SETTLE_S = 60.0, 0.5
#: Numerical libraries take one core, not all of the node's.
ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: The child; its time limit in seconds follows.
COMMAND = (sys.executable, "-P", "-m", "scaling.forecast.child")


class Forecaster:
    """The forecasts of one term as master; `run()` is cancelled when it ends."""

    def __init__(
        self,
        bus: Bus,
        resources: Mapping[str, Resources],
        clock: Callable[[], float],
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`resources`: kind -> what a task takes; `clock`: Unix seconds; `command`: what makes the fits."""
        self._bus, self._resources, self._clock, self._command = bus, resources, clock, tuple(command)
        self._history, self._after = History(), 0
        self._looked: Looked | None = None
        self._news = asyncio.Event()
        self._last: Due | None = None
        self._kept: dict[str, Kept] = {}
        self._took_s, self._rest_until = 0.0, float("-inf")
        self.problem = ""
        """What is wrong with the last fit, in words; "" for nothing."""

    def look(self, seen: Cycle) -> dict[str, Forecast]:
        """pool -> what is expected of it, for the decision on what was just seen; and what to forecast from now on."""
        before, self._looked = self._looked, fitting.looked(seen.seen, seen.offers, seen.config)
        if before is None or _essence(before) != _essence(self._looked):
            self._news.set()
        return fitting.forecasts(self._kept, self._looked, seen.now)

    def document(self, now: float) -> dict[str, dict[str, Any]]:
        """pool -> its forecast as people are shown it; `look` comes first."""
        return fitting.document(self._kept, self._looked, self._history, self.problem, now) if self._looked else {}

    async def run(self) -> None:
        """Until it is cancelled; the child ends with it."""
        # A hint only: should the bus be away right now, the history is looked at all the same.
        heard = await self._bus.subscribe(subjects.METRICS_SUBJECTS[0], lambda _: self._news.set(), wait=False)
        try:
            while True:
                self._news.clear()
                try:
                    await self._step()
                except QueztlError as error:
                    self.problem = f"the history can't be read: {error.message}"
                except Exception as error:
                    # A fault in a forecast must not stop the decisions.
                    self.problem = f"no forecast was made: {' '.join(str(error).split()) or type(error).__name__}"
                    log.warning("forecast: %s", error, exc_info=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._news.wait()
                    await asyncio.sleep(SETTLE_S)
        finally:
            await heard.close()

    async def _step(self) -> None:
        seen = self._looked
        if seen is None or seen.config.mode == fitting.REACTIVE:
            return
        await self._read(seen.config.history_weeks * fitting.WEEK_S)
        now = self._clock()
        what = fitting.due(self._history, seen, self._last, now)
        if what is None or now < self._rest_until:
            return
        self._last = what
        if importlib.util.find_spec("numpy") is None:
            self.problem = f"numpy is not installed ({HOW_TO_INSTALL})"
            return
        # In a thread: weeks of minutes take a tenth of a second. Nobody adds to the history meanwhile.
        asked = await asyncio.to_thread(fitting.asked, self._history, what, seen, self._resources, self._took_s, now)
        if not asked:
            return
        fits, self.problem = await self._fit(asked, seen.config.forecast_limit_s)
        came = self._clock()
        self._took_s, self._rest_until = came - now, came + (came - now) * fitting.REST
        _, end, step_s = what.within
        self._kept |= {one.pool: Kept(one, end, step_s, what.aim, came) for one in fits}
        if self.problem:
            log.warning("forecast: %s", self.problem)

    async def _read(self, keep_s: float) -> None:
        """What METRICS holds since the last time. Raises: BusUnavailable, ApiError."""
        info = await self._bus.stream_info(subjects.METRICS)
        if info.last_sequence < self._after:  # the stream was made anew
            self._history, self._after = History(), 0
        more, oldest = True, self._clock() - keep_s
        while more:
            page, more = await read_page(self._bus, subjects.METRICS, subjects.METRICS_SUBJECTS[0], self._after)
            for one in page:
                self._after = one.sequence
                try:
                    sample = decode_sample(one.data)
                except msgspec.MsgspecError:  # of another version
                    continue
                if sample.at > oldest:
                    self._history.add(sample, self._clock())
        self._history.forget(oldest)

    async def _fit(self, asked: Sequence[Asked], limit_s: float) -> tuple[list[Fit], str]:
        """(what the child found in time, what went wrong or "")"""
        child = await asyncio.create_subprocess_exec(
            *self._command, f"{limit_s:g}",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env=environment() | ONE_CORE, start_new_session=True,
        )  # fmt: skip
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        said = asyncio.create_task(child.stderr.read(), name="what the forecast's child says")
        found: list[Fit] = []
        try:
            async with asyncio.timeout(limit_s):
                with contextlib.suppress(ConnectionError):  # it ended before it read all: its words say why
                    child.stdin.write(b"".join(msgspec.json.encode(one) + b"\n" for one in asked))
                    await child.stdin.drain()
                child.stdin.close()
                async for line in child.stdout:
                    found.append(msgspec.json.decode(line, type=Fit))  # noqa: PERF401 (kept when time is over)
                code, words = await child.wait(), (await said).decode(errors="replace").split("\n")
            last = next((line for line in reversed(words) if line.strip()), f"it ended with exit code {code}")
            return found, f"the fit failed: {last}" if code else ""
        except TimeoutError:
            return found, f"the fit took longer than {limit_s:g} s and was stopped"
        finally:
            said.cancel()
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)  # a session of its own: with whatever Prophet started
            await child.wait()


def _essence(seen: Looked) -> tuple[object, ...]:
    """What of a look makes another forecast worth while."""
    return seen.config.mode, fitting.capacity_target_of(seen.config), sorted(seen.pools)
