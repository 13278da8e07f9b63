"""A cable is pulled under 500 mixed tasks: no connection is closed, and yet the work starts elsewhere in time."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests import invariants
from tests.faults.conftest import Field
from tests.faults.mixed import echoed
from tests.faults.scene import AFTER_A_FREEZE_S, check, reclaimed, set_up, started_elsewhere, victim_of
from tests.invariants import Witness
from tests.lan.conftest import cable, inside
from tests.nodes import Cluster

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(300)]


def test_a_pulled_cable_and_back(lan: list[str], tmp_path: Path) -> None:
    """The host and the rescuer are on the first machine, the victim on the second."""
    inside(lan[0], _pull_and_plug(lan[1], tmp_path))


async def _pull_and_plug(far: str, folder: Path) -> None:
    async with Cluster(folder, interface="eth0") as cluster:
        try:
            await cluster.node("--label", "mix=1", slots=4).start()
            mesh = await cluster.client()
            field = Field(cluster, mesh, await Witness(mesh.bus).start())
            victim = victim_of(field)
            victim.command = ("nsenter", f"--net=/run/netns/{far}", sys.executable, "-m", "node")
            await victim.start()
            scene = await set_up(field, victim)
            at = time.time()
            cable(far, plugged=False)
            await started_elsewhere(field, scene, at, AFTER_A_FREEZE_S)
            await check(field, scene, at, "the cable was pulled")
            await reclaimed(field, victim, "no heartbeat came")
            cable(far, plugged=True)
            back = await mesh.start("echo", {"value": "back"}, requires={"node": victim.id})
            await back.end(60)
            print(f"it works again {time.time() - at:.1f} s after the cable was pulled")
            await invariants.check(mesh, scene.accepted | {back.id: echoed("back")}, field.witness)
        finally:
            cluster.print_logs()
