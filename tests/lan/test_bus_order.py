"""Three machines: one restarts in order, two are lost for good, all lose power while the bus grows."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from tests import invariants
from tests.invariants import Witness
from tests.lan.conftest import inside
from tests.lan.office import Office, Scene, grown
from tests.nodes import ROOT, NodeProcess, eventually

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(400)]

#: Until three copies are there again, seconds: the preset's two until a node may host, joining, and the ten that
#: nats-server waits for the consumers of a queue that is scaled.
WHOLE_WITHIN_S = 60.0


@pytest.mark.long
def test_one_of_three_machines_restarts_in_order_and_three_copies_are_there_soon(
    office: list[str], tmp_path: Path
) -> None:
    """The servers that the others ended, by order of the leader, count as no failure of their nodes."""
    inside(office[-1], _restart([*office[:3], office[-1]], tmp_path))


async def _restart(machines: list[str], folder: Path) -> None:
    async with grown(folder, machines) as scene:
        leader = await scene.leads()
        other = next(node for node in scene.office.nodes if node is not leader)

        async def restart() -> None:
            began = time.monotonic()
            await other.terminate()
            print(f"left in order within {time.monotonic() - began:.1f} s")
            await other.start()

        await scene.scenario("restart of one of three machines in order", restart)
        await scene.until_safe(within_s=WHOLE_WITHIN_S)

        # Two of three are lost: a submission is told what `queztl bus` says.
        for node in (node for node in scene.office.nodes if node is not leader):
            await node.kill9()
        machine = scene.office.machine_of(leader)
        for _ in range(6):
            refused = await queztl(machine, "submit", "echo", "{}", "--url", leader.api)
            if "nothing can be stored" in refused:
                break
        shown = json.loads(await queztl(machine, "bus", "--json", "--url", leader.api))
        assert shown["bus"]["standstill"] == shown["bus"]["safety"] and shown["bus"]["standstill"][1:] in refused, (
            refused
        )
        assert shown["queue"]["tasks"] is None
        for node in scene.office.nodes:
            if node is not leader:
                await node.start()
        await scene.until_safe()


@pytest.mark.long
def test_a_power_cut_seconds_after_growth_keeps_no_node_from_starting(office: list[str], tmp_path: Path) -> None:
    """Consumers still have their only copy on one machine then: until it is back, they are offline (10119)."""
    inside(office[-1], _cut_after_growth([*office[:3], office[-1]], tmp_path))


async def _cut_after_growth(machines: list[str], folder: Path) -> None:
    async with Office(folder, machines) as office:
        try:
            await office.start_all()
            mesh = await office.client()
            scene = Scene(office, mesh, await Witness(mesh.bus).start())
            await scene.submit(50)

            async def grown_just_now() -> bool:
                return len(await scene.voters()) == 3

            await eventually(grown_just_now, 60, "three bus servers")
            await asyncio.gather(*(node.kill9() for node in office.nodes))
            # The machine that created the mesh, with the only copies, is the last.
            first = next(node for node in office.nodes if "created" in node.banner or node.hosts_bus)
            others = [node for node in office.nodes if node is not first]
            late = asyncio.create_task(_late(first), name="late")
            await asyncio.gather(*(node.start() for node in others))
            await late
            await scene.until_safe()
            await invariants.check(mesh, scene.accepted, scene.witness)
            await scene.close()
        finally:
            office.print_logs()


async def _late(node: NodeProcess) -> None:
    await asyncio.sleep(15.0)  # by intent: the others search for it meanwhile
    await node.start()


async def queztl(machine: str, *arguments: str) -> str:
    """What the command prints on that machine."""
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/run/netns/{machine}", sys.executable, "-m", "api.cli.main", *arguments, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    return (await process.communicate())[0].decode()
