"""Every bus server gets a new address at once: a router's new subnet, virtual machines stopped and started.

The nodes hear each other by mDNS all the time, so the mesh is one again without a person.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests import invariants
from tests.lan.conftest import inside
from tests.lan.office import Scene, grown
from tests.nodes import eventually, records

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(400)]

#: Until every server has a copy of everything again, as each of them says itself, seconds.
WHOLE_WITHIN_S = 60.0
TASKS = 100


@pytest.mark.long
def test_all_addresses_change_while_the_mesh_runs(office: list[str], tmp_path: Path) -> None:
    """Three bus servers and a node without one."""
    inside(office[-1], _live([*office[:4], office[-1]], tmp_path))


async def _live(machines: list[str], folder: Path) -> None:
    async with grown(folder, machines) as scene:
        await scene.submit(TASKS)
        began = time.monotonic()
        scene.office.renumber("10.78.0")
        await scene.moved()
        await _is_whole(scene, began, "all addresses change while the mesh runs")


@pytest.mark.long
def test_all_addresses_change_with_a_power_cut(office: list[str], tmp_path: Path) -> None:
    inside(office[-1], _power_cut([*office[:4], office[-1]], tmp_path))


async def _power_cut(machines: list[str], folder: Path) -> None:
    async with grown(folder, machines) as scene:
        await scene.submit(TASKS)
        await asyncio.gather(*(node.kill9() for node in scene.office.nodes))
        began = time.monotonic()
        scene.office.renumber("10.78.0")
        await asyncio.gather(*(node.start() for node in scene.office.nodes))
        await scene.moved()
        await _is_whole(scene, began, "all addresses change with a power cut")


async def _is_whole(scene: Scene, began: float, name: str) -> None:
    """Every server holds everything within the limit; work flows, and nothing that was accepted is lost."""
    await scene.until_safe(within_s=WHOLE_WITHIN_S)
    took_s = time.monotonic() - began
    print(f"| {name} | whole again after {took_s:.0f} s |", flush=True)
    assert took_s < WHOLE_WITHIN_S
    await scene.submit(10)
    await invariants.check(scene.mesh, scene.accepted, scene.witness)
    current = [(f"{scene.office.subnet}.{number}",) for number in range(1, 5)]

    async def recorded() -> bool:
        return sorted(record.addresses for record in (await records(scene.bus)).values()) == current

    await eventually(recorded, WHOLE_WITHIN_S, "the records name the new addresses")
