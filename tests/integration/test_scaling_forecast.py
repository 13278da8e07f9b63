"""The forecast in a running mesh: made from METRICS, trusted where it beats reactive, with a reason otherwise."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from mesh import messages, subjects
from mesh.bus.streams import declare_streams
from mesh.config import LOCAL
from scaling.domain.config import PREDICTIVE
from scaling.log.decision_record import replay
from tests.integration.scaling_harness import WITHIN_S, Scene, make_scene
from tests.nodes import eventually

#: Minutes of history: a day and a half, in steps of a minute.
MINUTES = 2160
#: A pulse each hour, of ten minutes and four busy nodes; the next one begins in a minute.
PULSE, IDLE = 240, 20


class Clock:
    """A clock that stands at a whole minute until a test moves it; also its own factory, as each term makes a clock."""

    def __init__(self) -> None:
        self.now = time.time() // 60 * 60

    def __call__(self) -> Callable[[], float]:
        return lambda: self.now


@pytest.fixture
async def scene(bus_server: Any) -> AsyncIterator[Scene]:
    made = await make_scene(bus_server)
    yield made
    await made.kill()


def pulses(minute: int) -> int:
    """The number of tasks that arrive in a minute; minute 0 begins now."""
    return (PULSE if 1 <= minute % 60 <= 10 else IDLE) + random.Random(minute).randrange(12)


def noise(minute: int) -> int:
    """Random arrivals without any pattern."""
    return int(random.Random(minute).expovariate(1 / 60))


async def store_samples(scene: Scene, arrivals: Callable[[int], int], now: float, first: int, end: int) -> None:
    """Store samples of those minutes in METRICS, of tasks of one second each."""
    for begin in range(first, end, 200):
        minutes = range(begin, min(end, begin + 200))
        samples = [
            {
                "kind": "echo", "region": "", "at": now + 60.0 * (minute + 1), "interval_s": 60.0, "queued": 0,
                "running": 0, "arrivals": arrivals(minute), "ends": arrivals(minute), "fence": 1, "slots": 1,
                "work_s": float(arrivals(minute)),
            }
            for minute in minutes
        ]  # fmt: skip
        subject = subjects.metric("echo", "")
        await asyncio.gather(*(scene.bus.store(subject, messages.encode(sample)) for sample in samples))


async def forecast(scene: Scene, holds: Callable[[dict[str, Any]], object], why: str) -> dict[str, Any]:
    """Poll the forecast of the pool in the status until `holds` is true; returns it."""
    shown: dict[str, Any] = {}

    async def looked() -> object:
        status = await scene.store.status()
        shown.update((status or {}).get("forecast", {}).get("cpu", {}))
        return shown and holds(shown)

    await eventually(looked, WITHIN_S, lambda: f"{why}: {shown}")
    return shown


async def decisions(scene: Scene) -> list[dict[str, Any]]:
    """The journaled decisions with a forecast; each is replayed from its record."""
    found = [decision for decision in await scene.store.decisions(100) if decision["from"]["forecast"]]
    for decision in found:
        made, same = replay(decision)
        assert same and made.at == decision["at"]
    return found


async def test_nodes_are_started_before_an_hourly_pulse(scene: Scene) -> None:
    clock = Clock()
    await store_samples(scene, pulses, clock.now, -MINUTES, 0)
    await scene.settings(max_nodes=9)
    await scene.elect(make_clock=clock)
    await scene.until(lambda: scene.machines.started >= 3, "nodes are started before the pulse begins")
    shown = await forecast(scene, lambda found: found["in_force"], "a forecast is in force")
    assert shown["trusted"] and shown["ratio"] < 0.9 and shown["steps"] == MINUTES and shown["step_s"] == 60
    assert 4 <= shown["median"] <= shown["upper"] <= 5 and shown["lower"] <= shown["median"]
    assert shown["model"] and shown["known_until"] == clock.now and 0 < shown["took_s"] < WITHIN_S
    made = [decision for decision in await decisions(scene) if decision["pools"][0]["launches"]]
    assert made
    for decision in made:
        (pool,) = decision["pools"]
        wanted = max(pool["proposals"], key=lambda proposal: proposal["nodes"])
        assert wanted["policy"] == "predictive" and pool["target"] >= 4, pool["trail"]
        assert decision["from"]["observation"]["pools"][0]["load"] == 0, "no load has arrived yet"

    # Each further minute is forecast from the samples up to then.
    await store_samples(scene, pulses, clock.now, 0, 1)
    clock.now += 60
    await forecast(scene, lambda found: found["known_until"] == clock.now, "the next minute is part of the history")

    # A price of violations replaces the quantile: the forecast is made anew, in whole nodes.
    await scene.settings(max_nodes=9, violation_nodes=50.0)
    shown = await forecast(
        scene, lambda found: found["in_force"] and found["at_start"] % 1 == 0, "whole nodes are held"
    )
    assert shown["trusted"] and shown["at_start"] == shown["until_start"] == 5.0, "the fifth node pays off"
    assert shown["sure"] > shown["quantile"] == 0.95 and shown["lower"] <= shown["median"] <= shown["upper"] < 5.0


async def test_a_forecast_of_noise_is_not_trusted_and_observations_decide(scene: Scene) -> None:
    clock = Clock()
    await store_samples(scene, noise, clock.now, -MINUTES, 0)
    await scene.settings(max_nodes=9)
    await scene.elect(make_clock=clock)
    shown = await forecast(scene, lambda found: found["in_force"], "there is a forecast")
    assert not shown["trusted"] and shown["ratio"] > 0.93 and "reactive" in shown["why"]
    await scene.cycles(5)
    assert not scene.machines.started
    await scene.settings(max_nodes=9, mode=PREDICTIVE)
    await scene.until(lambda: scene.machines.started, "the predictive mode uses every forecast")
    found = await decisions(scene)
    assert found and not any(
        decision["pools"][0]["launches"] for decision in found if decision["from"]["config"]["mode"] == "hybrid"
    )


async def test_without_history_it_says_so_and_starts_when_there_is_some(scene: Scene) -> None:
    clock = Clock()
    await scene.settings(max_nodes=9)
    await scene.elect(make_clock=clock)
    shown = await forecast(scene, lambda found: not found["in_force"], "there is nothing to forecast from")
    assert shown["why"] == "there is no load history yet"
    await store_samples(scene, pulses, clock.now, -20, 0)
    shown = await forecast(scene, lambda found: found.get("steps"), "it is too short")
    assert shown["why"] == "20 steps of 60 s are too few for a model"
    assert not shown["in_force"] and shown["upper"] is None
    # An operator deletes and recreates the stream: the new one is read from its beginning.
    await scene.bus.api(f"STREAM.DELETE.{subjects.METRICS}")
    await declare_streams(scene.bus, LOCAL, free_bytes=4 << 30)
    await store_samples(scene, pulses, clock.now, 0, 10)
    clock.now += 600
    await forecast(scene, lambda found: found["steps"] == 10, "the new stream's history counts, and nothing else")


def hangs(notes: Path) -> tuple[str, ...]:
    """The command of a forecaster that hangs, with a child process as Prophet has; it notes both pids."""
    return ("sh", "-c", f"sleep 600 & echo $$ $! > {notes}.part && mv {notes}.part {notes}; wait")


async def started(notes: Path) -> list[psutil.Process]:
    """The processes of a forecaster that hangs."""

    async def noted() -> bool:
        return notes.exists()

    await eventually(noted, WITHIN_S, "the forecaster is started")
    return [psutil.Process(int(pid)) for pid in notes.read_text().split()]


async def ended(processes: list[psutil.Process]) -> None:
    """Wait until the processes have ended or are zombies."""

    async def gone() -> bool:
        return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)

    await eventually(gone, WITHIN_S, "no process of the forecaster is left")


async def test_a_forecaster_that_hangs_is_ended_and_reported_and_decisions_go_on(scene: Scene, tmp_path: Path) -> None:
    clock, notes = Clock(), tmp_path / "forecaster"
    await store_samples(scene, pulses, clock.now, -120, 0)
    await scene.settings(max_nodes=4, forecast_limit_s=1.0)
    await scene.elect(make_clock=clock, forecast_command=hangs(notes))
    processes = await started(notes)
    assert len(processes) == 2
    problem = "the fit took longer than 1 s and was stopped"
    shown = await forecast(scene, lambda found: problem in found["why"], "the status says so")
    assert not shown["in_force"]
    await ended(processes)
    await scene.submit(200)
    await scene.until(lambda: scene.machines.started == 3, "observations still decide")
    status = await scene.store.status()
    assert status is not None and f"forecast: {problem}" in status["notes"]


async def test_a_forecaster_that_fails_is_reported_with_its_error(scene: Scene) -> None:
    clock = Clock()
    await store_samples(scene, pulses, clock.now, -120, 0)
    await scene.settings(max_nodes=4)
    await scene.elect(make_clock=clock, forecast_command=("sh", "-c", "echo no luck >&2; exit 3"))
    await forecast(scene, lambda found: "the fit failed: no luck" in found["why"], "the status says why it failed")


async def test_the_end_of_a_term_ends_its_forecaster(scene: Scene, tmp_path: Path) -> None:
    clock, notes = Clock(), tmp_path / "forecaster"
    await store_samples(scene, pulses, clock.now, -120, 0)
    await scene.settings(max_nodes=4)
    await scene.elect(make_clock=clock, forecast_command=hangs(notes))
    processes = await started(notes)
    await scene.kill()
    await ended(processes)
