"""Calibration: an idle node measures its kinds and publishes their speeds, and gives way to work."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mesh import subjects
from mesh.client import Mesh
from mesh.coordination import Plan
from mesh.data_folder import SPEEDS
from mesh.kinds.base import KindSpec
from mesh.kinds.table import KINDS
from mesh.scheduling import placement
from node.identity import calibration
from node.identity.calibrator import Calibrator
from tests.nodes import Cluster, NodeProcess, eventually, records


@pytest.mark.timeout(480)
async def test_speeds_are_published_and_kept_over_a_restart(tmp_path: Path) -> None:
    """They are in the node record, and so in network/status; the second start measures nothing."""
    wanted = {name for name, spec in KINDS.items() if spec.probe is not None}
    async with Cluster(tmp_path) as cluster:
        node = await cluster.node("--measure-after", "1", "--measure-below", "100").start()
        mesh = await cluster.client()
        assert await mesh.submit("echo", {"value": 1}, wait_s=30) == {"value": 1}

        async def shown() -> bool:
            return set((await records(mesh.bus))[node.id].capabilities.speeds) == wanted

        # 10 probes load their libraries in workers of low priority: 64 s at load 5, several times that at load 20.
        await eventually(shown, 300, node.log)
        speeds = (await records(mesh.bus))[node.id].capabilities.speeds
        assert all(0 < seconds < 60 for seconds in speeds.values()), speeds
        assert set(json.loads((node.folder / SPEEDS).read_text())) == wanted
        assert not (node.folder / "measuring").exists()
        view = next(node_view for node_view in await mesh.nodes() if node_view.id == node.id)
        assert view.capabilities.speeds == speeds

        assert await node.terminate() == 0
        await node.start()
        again = await cluster.client()
        assert (await records(again.bus))[node.id].capabilities.speeds == speeds
        await _a_slower_node_ranks_last(cluster, node, again)


async def _a_slower_node_ranks_last(cluster: Cluster, fast: NodeProcess, mesh: Mesh) -> None:
    """The leader ranks a second node last for every kind, whose stored speeds are ten times lower."""
    slow = cluster.node()
    slow.folder.mkdir()
    kept = json.loads((fast.folder / SPEEDS).read_text())
    remembered = {kind: entry | {"seconds": entry["seconds"] * 10} for kind, entry in kept.items()}
    (slow.folder / SPEEDS).write_text(json.dumps(remembered))
    await slow.start()
    wanted = {kind: {fast.id: 0, slow.id: len(placement.STEPS)} for kind in kept}
    plan: dict[str, dict[str, int]] = {}

    async def ranked() -> bool:
        entry = await mesh.bus.kv(subjects.KV_PLAN).get(subjects.PLAN_KEY)
        ranks = msgspec.msgpack.decode(entry.value, type=Plan).ranks if entry is not None else {}
        plan.update({kind: ranks.get(kind, {}) for kind in kept})
        return plan == wanted

    await eventually(ranked, 60, lambda: f"ranks follow speeds: {plan}")


class Scene:
    """A calibrator with its dependencies, and a record of what it published."""

    def __init__(self, folder: Path, *specs: KindSpec, idle_s: float = 0.1, percent: float = 0.0) -> None:
        self.held, self.published = asyncio.Event(), asyncio.Event()
        self.seconds: dict[str, float] = {}
        self.percent, self.looks = percent, 0
        self.calibrator = Calibrator(
            specs, lambda spec: "here", self.seconds,
            slots=1, folder=folder, idle_s=idle_s, held=self.held, publish=self._publish,
            busy_percent=25.0, cpu_percent=self._cpu_percent,
        )  # fmt: skip

    def _cpu_percent(self) -> float:
        self.looks += 1
        return self.percent

    def measure(self, *specs: KindSpec) -> Coroutine[None, None, None]:
        return self.calibrator.measure(specs)

    async def _publish(self) -> None:
        self.published.set()


@pytest.fixture
def echo() -> KindSpec:
    """A kind whose probe takes a known time."""
    return replace(KINDS["echo"], probe={"sleep_s": 0.2})


async def test_arriving_work_ends_a_probe_which_is_repeated_later(tmp_path: Path, echo: KindSpec) -> None:
    long = replace(echo, probe={"sleep_s": 50})
    scene = Scene(tmp_path, long)
    running = asyncio.create_task(scene.calibrator.run())
    try:
        folder = tmp_path / "measuring"
        await eventually(lambda: asyncio.to_thread(folder.exists), 30, "the probe starts")
        scene.held.set()
        await eventually(lambda: asyncio.to_thread(lambda: not folder.exists()), 10, "the probe ends")
        assert scene.seconds == {} and not running.done()
        scene.held.clear()
        await eventually(lambda: asyncio.to_thread(folder.exists), 30, "the probe starts again")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert not folder.exists(), "a cancelled calibration leaves nothing"


async def test_a_measured_speed_is_published_and_stored(tmp_path: Path, echo: KindSpec) -> None:
    scene = Scene(tmp_path, echo)
    await asyncio.wait_for(scene.measure(echo), 60)
    assert scene.published.is_set() and 0.2 <= scene.seconds["echo"] < 20
    assert json.loads((tmp_path / SPEEDS).read_text()) == {
        "echo": {"seconds": scene.seconds["echo"], "of": "here", "times": 1}
    }


async def test_a_kind_that_fails_is_left_out_and_the_next_one_measured(tmp_path: Path, echo: KindSpec) -> None:
    broken = replace(echo, name="image_processing", probe={"image": "AAAA"})
    scene = Scene(tmp_path, broken, echo)
    await asyncio.wait_for(scene.measure(broken, echo), 60)
    assert set(scene.seconds) == {"echo"}


async def test_with_no_idle_time_nothing_is_measured(tmp_path: Path, echo: KindSpec) -> None:
    scene = Scene(tmp_path, echo, idle_s=0)
    await asyncio.wait_for(scene.calibrator.run(), 5)
    assert scene.seconds == {} and list(tmp_path.iterdir()) == []


async def test_a_busy_machine_is_not_measured_before_it_is_quiet(tmp_path: Path, echo: KindSpec) -> None:
    """At load 40 a machine seemed twelve times as slow, until its hardware changed."""
    scene = Scene(tmp_path, echo, percent=90.0)
    measuring = asyncio.create_task(scene.measure(echo))
    await eventually(lambda: asyncio.sleep(0, scene.looks > 4), 10, "it looks")
    assert scene.seconds == {} and not (tmp_path / "measuring").exists()
    scene.percent = 5.0
    await asyncio.wait_for(measuring, 60)
    assert set(scene.seconds) == {"echo"}


async def test_a_figure_made_while_others_used_the_machine_is_thrown_away(tmp_path: Path, echo: KindSpec) -> None:
    scene = Scene(tmp_path, echo)
    measuring = asyncio.create_task(scene.measure(echo))
    await eventually(lambda: asyncio.to_thread((tmp_path / "measuring").exists), 30, "the probe starts")
    scene.percent = 90.0
    await eventually(lambda: asyncio.to_thread(lambda: not (tmp_path / "measuring").exists()), 30, "it ends")
    looks = scene.looks
    await eventually(lambda: asyncio.sleep(0, scene.looks > looks + 3), 10, "it looks again")
    assert scene.seconds == {} and not scene.published.is_set()
    scene.percent = 5.0
    await asyncio.wait_for(measuring, 60)
    assert set(scene.seconds) == {"echo"}


def test_the_best_of_several_occasions_is_kept_until_the_circumstances_change(tmp_path: Path, echo: KindSpec) -> None:
    assert [calibration.save("echo", seconds, "here", tmp_path) for seconds in (3.0, 2.0, 45.0)] == [3.0, 2.0, 2.0]
    assert calibration.to_repeat([echo], {"echo"}, 3, tmp_path) == []
    assert calibration.to_repeat([echo], {"echo"}, 4, tmp_path) == [echo]
    assert calibration.save("echo", 9.0, "there", tmp_path) == 9.0
    assert calibration.to_repeat([echo], {"echo"}, 3, tmp_path) == [echo]
