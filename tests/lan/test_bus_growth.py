"""The bus over five machines: it grows under work, survives each of its servers, and hands over leadership in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import invariants
from tests.invariants import Witness
from tests.lan.conftest import inside
from tests.lan.office import Office, Scene, grown
from tests.nodes import NodeProcess

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(400)]

#: What a submission may wait at most while the mesh grows, seconds: nats-server waits ten for the queue's consumers.
STALL_S = 30.0


def test_five_machines_started_at_once_grow_to_three_servers_under_work(office: list[str], tmp_path: Path) -> None:
    inside(office[-1], _grow(office, tmp_path))


async def _grow(machines: list[str], folder: Path) -> None:
    async with Office(folder, machines) as office:
        try:
            await office.start_all()
            mesh = await office.client()
            scene = Scene(office, mesh, await Witness(mesh.bus).start())
            async with scene.pulse():
                await scene.submit(300)
                took_s = await scene.until_safe()
            print(f"| growth from 1 to 3 servers | {scene.stall_s:.1f} s | {took_s:.0f} s |")
            assert scene.stall_s < STALL_S
            await invariants.check(mesh, scene.accepted, scene.witness)
            assert len({office.machine_of(node) for node in await scene.voters()}) == 3
            await scene.close()
        finally:
            office.print_logs()


#: No election follows the death of a follower, and an election takes at least four seconds.
FOLLOWER_STALL_S, LEADER_STALL_S = 4.0, 20.0


def test_the_server_that_leads_is_killed(office: list[str], tmp_path: Path) -> None:
    inside(office[-1], _kill_the_leader(office, tmp_path))


async def _kill_the_leader(machines: list[str], folder: Path) -> None:
    async with grown(folder, machines) as scene:
        await killing(scene, await scene.leads(), "kill -9 of the machine that leads everything", LEADER_STALL_S)


async def killing(scene: Scene, victim: NodeProcess, name: str, limit_s: float) -> None:
    """Kill that machine, and start it again."""

    async def kill() -> None:
        await victim.kill9()

    stall_s = await scene.scenario(name, kill)
    await victim.start()
    await scene.until_safe()
    assert stall_s < limit_s


@pytest.mark.long
def test_every_server_is_killed_in_turn(office: list[str], tmp_path: Path) -> None:
    inside(office[-1], _kill_each(office, tmp_path))


async def _kill_each(machines: list[str], folder: Path) -> None:
    async with grown(folder, machines) as scene:
        leader = await scene.leads()
        others = [node for node in await scene.voters() if node is not leader]
        await killing(scene, others[0], "kill -9 of a voter's machine", FOLLOWER_STALL_S)
        await killing(scene, others[1], "kill -9 of another voter's machine", FOLLOWER_STALL_S)
        await killing(scene, leader, "kill -9 of the machine that leads everything", LEADER_STALL_S)
