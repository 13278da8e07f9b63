"""The long-running parts of a node: named, started in order, restarted or fatal by a table, drained in reverse.

asyncio's TaskGroup cancels everything at the first error. A node must not: a crashed heartbeat is restarted, a
lost bus takes the node down. Which is which stands in one table in `node/daemon.py`, read by `run_services`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

log = logging.getLogger(__name__)

RESTART_BASE_S = 0.1
RESTART_MAX_S = 30.0
#: A service that ran this long before it failed starts again with the shortest back-off.
STEADY_S = 60.0
#: How long a service may take to end once it was cancelled, before it is left behind.
DRAIN_S = 10.0


@dataclass(frozen=True)
class Service:
    """One long-running part. `run` returning is its orderly end: it is not started again."""

    name: str
    """Also the name of its asyncio task: what a dump of the running node shows."""
    run: Callable[[], Awaitable[object]]
    on_failure: Literal["restart", "stop_node"] = "restart"


class ServiceFailed(Exception):
    """A service without which the node can't go on failed; `__cause__` is its own error."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(f"{name} failed: {sentence(error)}")
        self.name = name


def sentence(error: BaseException) -> str:
    """An error in one line for people: its message, or its type when it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def backoff_s(failures: int, ran_s: float, share: float) -> tuple[float, int]:
    """How long to wait after the `failures`-th failure in a row, and the count to go on with. Pure.

    `ran_s`: how long the service had run; `share`: a random number from 0 to 1, the jitter. The wait doubles
    from RESTART_BASE_S to RESTART_MAX_S, and lies between half of that and all of it.
    """
    failures = 1 if ran_s >= STEADY_S else max(1, failures)
    full_s = min(RESTART_MAX_S, RESTART_BASE_S * 2 ** min(failures - 1, 30))
    return full_s * (0.5 + 0.5 * share), failures + 1


async def run_services(services: Sequence[Service], stop: asyncio.Event, drain_s: float = DRAIN_S) -> None:
    """Run all of `services` until `stop` is set, then end them one by one, the last started first.

    Raises: ServiceFailed, when one marked "stop_node" failed (after all the others were drained); ValueError
    when two have the same name.
    """
    if len({service.name for service in services}) != len(services):
        raise ValueError("two services have the same name")
    failed: asyncio.Future[ServiceFailed] = asyncio.get_running_loop().create_future()
    tasks: list[asyncio.Task[None]] = []
    stopped = asyncio.create_task(stop.wait(), name="services: stop asked")
    try:
        tasks += [asyncio.create_task(_keep(one, failed), name=one.name) for one in services]
        await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        for task in reversed(tasks):
            await _drain(task, drain_s)
    if failed.done() and not failed.cancelled():
        raise failed.result() from failed.result().__cause__


async def _keep(service: Service, failed: asyncio.Future[ServiceFailed]) -> None:
    """Run one service, again and again if its policy says so."""
    loop = asyncio.get_running_loop()
    failures = 1
    while True:
        began = loop.time()
        try:
            await service.run()
            return
        except Exception as error:
            log.debug("%s failed", service.name, exc_info=True)
            if service.on_failure == "stop_node":
                log.error("%s failed and the node can't go on without it: %s", service.name, sentence(error))
                if not failed.done():
                    failure = ServiceFailed(service.name, error)
                    failure.__cause__ = error
                    failed.set_result(failure)
                return
            pause_s, failures = backoff_s(failures, loop.time() - began, random.random())
            log.error("%s failed, it starts again in %.1f s: %s", service.name, pause_s, sentence(error))
        await asyncio.sleep(pause_s)


async def _drain(task: asyncio.Task[None], drain_s: float) -> None:
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=drain_s)
    if not done:
        log.error("%s did not end within %.0f s and is left behind", task.get_name(), drain_s)
    elif not task.cancelled() and task.exception() is not None:
        log.debug("%s failed while it ended", task.get_name(), exc_info=task.exception())


async def within(event: asyncio.Event, limit_s: float) -> None:
    """Return when `event` is set, or after so long."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        pass


@dataclass(frozen=True)
class Tick:
    """One turn of a periodic loop."""

    number: int
    late_s: float
    """How much later than planned: past a limit, this process (or machine) stood still."""


async def every(interval_s: float, jitter: float = 0.1, first: bool = True) -> AsyncIterator[Tick]:
    """A turn each `interval_s` seconds, give or take the share `jitter` of it, so that nodes don't beat in step.

    The first turn comes at once unless `first` is False. Turns that were missed are not made up for: after a
    stall one late turn comes, then the rhythm goes on.
    """
    loop = asyncio.get_running_loop()
    number, due = 0, loop.time()
    if first:
        yield Tick(0, 0.0)
        number = 1
    while True:
        planned = due + interval_s * (1 + random.uniform(-jitter, jitter))
        # a body that took longer than the interval is late by its own doing as well: it did not look either
        await asyncio.sleep(max(0.0, planned - loop.time()))
        now = loop.time()
        yield Tick(number, max(0.0, now - planned))
        number, due = number + 1, max(planned, now - interval_s)
