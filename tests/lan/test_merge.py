"""Two meshes of one name, created apart, meet: both report it; merged by command, or automatically when one is new."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesh import subjects
from mesh.bus.client import Bus
from mesh.client import Mesh
from mesh.messages import decode_any
from tests import invariants
from tests.faults.mixed import echoed
from tests.invariants import Witness
from tests.lan.conftest import inside, ip
from tests.lan.office import SLEEP_S, Office
from tests.nodes import NodeProcess, eventually

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(300)]
#: The nodes of the mesh that is moved finish what they run, move, and join the other mesh.
MERGED_WITHIN_S = 120.0


@contextmanager
def apart(machines: list[str], others: list[str]) -> Iterator[None]:
    """`others` on a switch of their own, until the end of the block."""
    switch = f"{machines[0].rpartition('n')[0]}s"
    ip("-n", switch, "link", "add", "other", "type", "bridge")
    ip("-n", switch, "link", "set", "other", "up")
    for machine in others:
        plug(machine, "other")
    try:
        yield
    finally:
        for machine in machines:
            plug(machine, "switch")
        ip("-n", switch, "link", "del", "other")


def plug(machine: str, switch: str) -> None:
    """Have the machine's cable in that switch."""
    mark, _, number = machine.rpartition("n")
    ip("-n", f"{mark}s", "link", "set", f"port{number}", "master", switch)


def url_of(office: Office, machine: str) -> str:
    return f"nats://10.77.0.{machine.rpartition('n')[2]}:{office.bus_port}"


async def mesh_id(bus: Bus) -> str:
    entry = await bus.kv(subjects.KV_MESH).get(subjects.MESH_KEY)
    return str(decode_any(entry.value)["id"])


async def merged(office: Office, mesh: Mesh, nodes: int) -> bool:
    """Whether so many nodes are up in that mesh."""
    return sum(node.state == "up" for node in await mesh.nodes()) == nodes


async def queztl(*arguments: str) -> tuple[int, str]:
    """(exit code, output)"""
    command = [str(Path(sys.executable).with_name("queztl")), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return int(process.returncode or 0), out.decode()


async def fill(mesh: Mesh, count: int) -> dict[str, invariants.Expected]:
    accepted = {}
    for value in range(count):
        handle = await mesh.start("echo", {"value": value, "sleep_s": SLEEP_S})
        accepted[handle.id] = echoed(value)
    return accepted


def test_two_meshes_in_use_are_merged_by_command(office: list[str], tmp_path: Path) -> None:
    inside(office[-1], _by_hand(office, tmp_path))


async def _by_hand(machines: list[str], folder: Path) -> None:
    async with Office(folder, machines) as office:
        try:
            await _merge(office, machines)
        finally:
            office.print_logs()


async def _merge(office: Office, machines: list[str]) -> None:
    ours, theirs, client_machine = machines[:3], machines[3:5], machines[-1]
    nodes: dict[str, NodeProcess] = {machine: office.node_on(machine) for machine in machines[:-1]}
    with apart(machines, theirs):
        await asyncio.gather(*(node.start() for node in nodes.values()))
        host = next(machine for machine in ours if nodes[machine].hosts_bus)
        other_host = next(machine for machine in theirs if nodes[machine].hosts_bus)
        stays = await office.client(url_of(office, host))
        witness = await Witness(stays.bus).start()
        accepted, stayed = await fill(stays, 500), await mesh_id(stays.bus)
        plug(client_machine, "other")
        goes = await office.client(url_of(office, other_host))
        late = await fill(goes, 500)
        assert await mesh_id(goes.bus) != stayed
        plug(client_machine, "switch")
    began = time.monotonic()

    async def both_alarmed() -> bool:
        alarms = [await client.bus.kv(subjects.KV_MESH).get(subjects.ALARMS_KEY) for client in (stays, goes)]
        return all(entry is not None and "queztl bus merge" in json.dumps(decode_any(entry.value)) for entry in alarms)

    await eventually(both_alarmed, 60, "both have an alarm about the other mesh, and the command that decides")
    asked = ("--url", url_of(office, other_host), "bus", "merge", "--into", url_of(office, host))
    code, output = await queztl(*asked)
    assert code == 0 and "Nothing was changed" in output and "is merged into" in output, output
    code, output = await queztl(*asked, "--yes")
    assert code == 0 and "done: " in output, output
    moved_s = time.monotonic() - began
    await eventually(lambda: merged(office, stays, 5), MERGED_WITHIN_S, "five nodes in one mesh")
    # Clients that wait at the mesh that was moved receive the ends from the other mesh.
    for task in late:
        await goes.wait(task, 60)
    assert await mesh_id(goes.bus) == await mesh_id(stays.bus) == stayed
    accepted |= late
    await invariants.check(stays, accepted, witness)
    twice = sum(len(witness.runs(task)) > 1 for task in accepted)
    took_s = time.monotonic() - began
    print(f"| two meshes joined by hand | {moved_s:.1f} s | {twice} of {len(accepted)} | 0 | {took_s:.0f} s |")


def test_a_new_and_empty_mesh_is_merged_automatically_into_the_one_in_use(office: list[str], tmp_path: Path) -> None:
    inside(office[-1], _unasked(office, tmp_path))


async def _unasked(machines: list[str], folder: Path) -> None:
    async with Office(folder, machines) as office:
        first, second = machines[:2]
        used, new = office.node_on(first), office.node_on(second)
        try:
            with apart(machines, [second]):
                await asyncio.gather(used.start(), new.start())
                mesh = await office.client(url_of(office, first))
                assert await mesh.submit("echo", {"value": 1}, wait_s=20) == {"value": 1}
            await eventually(lambda: merged(office, mesh, 2), MERGED_WITHIN_S, "both nodes in the mesh in use")
            assert {one.id for one in await mesh.nodes()} == {used.id, new.id}, "it is the same node as before"
            assert not new.hosts_bus and used.hosts_bus
            handle = await mesh.start("echo", {"value": 2}, requires={"node": new.id})
            assert await handle.result() == {"value": 2}
        finally:
            office.print_logs()
