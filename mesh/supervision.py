"""Supervision of long-running services: started in order, restarted or fatal when they fail, drained in reverse order.

asyncio's TaskGroup cancels everything at the first error. A node must not: a failed heartbeat service is restarted, a
failed bus stops the node. A table in `node/daemon.py` says which service is which.
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
#: After a service has run this long, its next failure gets the shortest back-off again, seconds.
STEADY_S = 60.0
#: How long a cancelled service may take to end before it is abandoned, seconds.
DRAIN_S = 10.0


@dataclass(frozen=True)
class Service:
    """One long-running service. When `run` returns, the service has ended normally and is not restarted."""

    name: str
    """Also the name of its asyncio task, for a dump of the running tasks."""
    run: Callable[[], Awaitable[object]]
    on_failure: Literal["restart", "stop_node"] = "restart"


class ServiceFailed(Exception):
    """A service failed that the node needs; `__cause__` is the error."""

    def __init__(self, name: str, error: BaseException) -> None:
        super().__init__(f"{name} failed: {sentence(error)}")
        self.name = name


def sentence(error: BaseException) -> str:
    """An error in one line for people: its message, or its type when it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def backoff_s(failures: int, ran_s: float, share: float) -> tuple[float, int]:
    """(seconds to wait after the `failures`-th failure in a row, the count for the next one). Pure.

    `ran_s`: how long the service had run; `share`: a random number from 0 to 1, the jitter. The wait doubles from
    RESTART_BASE_S to RESTART_MAX_S, and is jittered between half of it and all of it.
    """
    failures = 1 if ran_s >= STEADY_S else max(1, failures)
    full_s = min(RESTART_MAX_S, RESTART_BASE_S * 2 ** min(failures - 1, 30))
    return full_s * (0.5 + 0.5 * share), failures + 1


async def run_services(services: Sequence[Service], stop: asyncio.Event, drain_s: float = DRAIN_S) -> None:
    """Run all `services` until `stop` is set, then cancel them one by one, the last started first.

    Raises: ServiceFailed when a service marked "stop_node" fails (after the others were drained); ValueError when two
    services have the same name.
    """
    if len({service.name for service in services}) != len(services):
        raise ValueError("two services have the same name")
    failed: asyncio.Future[ServiceFailed] = asyncio.get_running_loop().create_future()
    tasks: list[asyncio.Task[None]] = []
    stopped = asyncio.create_task(stop.wait(), name="services: stop requested")
    try:
        tasks += [asyncio.create_task(_supervise(service, failed), name=service.name) for service in services]
        await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
        for task in reversed(tasks):
            await _drain(task, drain_s)
    if failed.done() and not failed.cancelled():
        raise failed.result() from failed.result().__cause__


async def _supervise(service: Service, failed: asyncio.Future[ServiceFailed]) -> None:
    """Run one service, and restart it when it fails if its policy says so."""
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
                log.error("%s failed and the node stops: %s", service.name, sentence(error))
                if not failed.done():
                    failure = ServiceFailed(service.name, error)
                    failure.__cause__ = error
                    failed.set_result(failure)
                return
            pause_s, failures = backoff_s(failures, loop.time() - began, random.random())
            log.error("%s failed and restarts in %.1f s: %s", service.name, pause_s, sentence(error))
        await asyncio.sleep(pause_s)


async def _drain(task: asyncio.Task[None], drain_s: float) -> None:
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=drain_s)
    if not done:
        log.error("%s did not end within %.0f s and is abandoned", task.get_name(), drain_s)
    elif not task.cancelled() and task.exception() is not None:
        log.debug("%s failed while it ended", task.get_name(), exc_info=task.exception())


async def wait_until_set(event: asyncio.Event, limit_s: float) -> None:
    """Return when `event` is set, or after `limit_s` seconds."""
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        pass


@dataclass(frozen=True)
class Tick:
    """One iteration of a periodic loop."""

    number: int
    late_s: float
    """How much later than planned it begins. A large value means that the process, or the machine, was suspended."""


async def every(interval_s: float, jitter: float = 0.1, first: bool = True) -> AsyncIterator[Tick]:
    """A tick each `interval_s` seconds, jittered by that share of it, so that nodes don't act in step.

    The first tick comes at once unless `first` is False. Missed ticks are not made up for: after a stall one late tick
    comes, then the rhythm continues.
    """
    loop = asyncio.get_running_loop()
    number, due = 0, loop.time()
    if first:
        yield Tick(0, 0.0)
        number = 1
    while True:
        planned = due + interval_s * (1 + random.uniform(-jitter, jitter))
        # A loop body that takes longer than the interval makes the next tick late as well.
        await asyncio.sleep(max(0.0, planned - loop.time()))
        now = loop.time()
        yield Tick(number, max(0.0, now - planned))
        number, due = number + 1, max(planned, now - interval_s)
