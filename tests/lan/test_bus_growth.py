"""The bus over five machines: it grows under work, survives each of its servers, and hands over leadership in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mesh import subjects
from mesh.client import Mesh
from tests import invariants
from tests.invariants import Witness
from tests.lan.conftest import inside
from tests.lan.office import GROWN_WITHIN_S, Office, Scene, grown
from tests.nodes import NodeProcess, eventually

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


async def _queue_grows(mesh: Mesh) -> None:
    """Return when the streams have just been ordered to three copies.

    The streams without consumers have them at once; the queue and the delayed work, ten seconds later.
    """

    async def ordered() -> bool:
        info = await mesh.bus.stream_info(f"KV_{subjects.KV_POOLS}")
        return int(info.config["num_replicas"]) == 3

    await eventually(ordered, GROWN_WITHIN_S, "the order to make three copies")


def test_work_that_arrives_while_the_queue_grows_is_accepted_at_once(office: list[str], tmp_path: Path) -> None:
    """A new lane was refused with 503 after ten seconds (10023), and so was delayed work."""
    inside(office[-1], _arrive_in_growth(office, tmp_path))


async def _arrive_in_growth(machines: list[str], folder: Path) -> None:
    async with Office(folder, machines[:3] + machines[-1:]) as office:
        try:
            await office.start_all()
            mesh = await office.client()
            await _queue_grows(mesh)
            submissions = (
                mesh.start("echo", {"value": 1}, requires={"node": office.nodes[0].id}),
                mesh.start("echo", {"value": 2}, urgency="high"),
                mesh.start("echo", {"value": 3}, delay_s=1),
            )
            for task in await asyncio.gather(*submissions):
                assert (await task.end(30)).state == "done"
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
