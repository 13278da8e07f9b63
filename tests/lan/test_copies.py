"""A cloned machine on one network with its original: exactly one goes on, and what either has accepted is done."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from mesh.client import Mesh
from tests import invariants
from tests.invariants import Witness
from tests.lan.conftest import inside
from tests.lan.office import Office
from tests.lan.test_merge import MERGED_WITHIN_S, apart, fill, merged, url_of
from tests.nodes import NodeProcess, eventually

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(300)]
#: A node that may not go on says so within this, seconds.
REFUSED_WITHIN_S = 30.0


class Scene(NamedTuple):
    """A mesh, and a clone of one of its machines that has not started."""

    office: Office
    mesh: Mesh
    original: NodeProcess
    member: NodeProcess
    clone: NodeProcess


async def cloned(office: Office, machine: str, original: NodeProcess) -> NodeProcess:
    """Another machine with a copy of that node's disk, switched off; the original, which is off, is started again."""
    assert await original.terminate() == 0, original.log()
    clone = office.node_on(machine)
    shutil.copytree(original.folder, clone.folder)
    await original.start()
    return clone


async def refused(clone: NodeProcess, original: NodeProcess) -> None:
    """The clone ends, and says which machine goes on and what to do."""

    async def ended() -> bool:
        return not clone.running

    await eventually(ended, REFUSED_WITHIN_S, clone.log)
    assert f"The node {original.id} runs on" in clone.log() and "empty --data" in clone.log(), clone.log()


async def runs(mesh: Mesh, node: NodeProcess) -> None:
    """Work that asks for this node is done by it."""
    end = await (await mesh.start("echo", {"value": node.id}, requires={"node": node.id})).end(30)
    assert (end.state, end.node, node.running) == ("done", node.id, True)


@asynccontextmanager
async def original_and_clone(machines: list[str], folder: Path) -> AsyncIterator[Scene]:
    """A mesh of two machines, and a clone of the one that holds the bus."""
    async with Office(folder, machines) as office:
        try:
            original, member = office.node_on(machines[0]), office.node_on(machines[1])
            await original.start()
            clone = await cloned(office, machines[2], original)
            await member.start()
            yield Scene(office, await office.client(url_of(office, machines[0])), original, member, clone)
        finally:
            office.print_logs()


def test_a_clone_of_the_machine_that_holds_the_bus_does_not_start_beside_it(office: list[str], tmp_path: Path) -> None:
    inside(office[-1], _beside(office, tmp_path))


async def _beside(machines: list[str], folder: Path) -> None:
    async with original_and_clone(machines, folder) as (_, mesh, original, member, clone):
        with pytest.raises(AssertionError, match="did not start"):
            await clone.start()
        await refused(clone, original)
        await runs(mesh, original)
        await runs(mesh, member)
        assert {node.id for node in await mesh.nodes() if node.state == "up"} == {original.id, member.id}


@pytest.mark.long
def test_two_clones_that_meet_become_one_mesh_and_nothing_is_lost(office: list[str], tmp_path: Path) -> None:
    """They led their meshes in turns: the last one to send a heartbeat was taken for the node."""
    inside(office[-1], _meet(office, tmp_path))


async def _meet(machines: list[str], folder: Path) -> None:
    async with original_and_clone(machines, folder) as (office, mesh, original, member, clone):
        witness = await Witness(mesh.bus).start()
        with apart(machines, [machines[2], machines[-1]]):
            await clone.start()
            assert clone.id == original.id
            client = await office.client(url_of(office, machines[2]))
            accepted = await fill(client, 20)
            await client.close()
        accepted |= await fill(mesh, 20)
        await refused(clone, original)
        await eventually(lambda: merged(office, mesh, 2), MERGED_WITHIN_S, "two nodes in one mesh")
        for task in accepted:
            await mesh.wait(task, 60)
        await invariants.check(mesh, accepted, witness)
        await runs(mesh, original)
        await runs(mesh, member)


@pytest.mark.long
def test_a_clone_of_one_of_three_bus_servers_leaves_the_three_alone(office: list[str], tmp_path: Path) -> None:
    """Two servers of one name would cut each other off."""
    inside(office[-1], _one_of_three(office, tmp_path))


async def _one_of_three(machines: list[str], folder: Path) -> None:
    async with Office(folder, machines[:3] + machines[-1:]) as office:
        try:
            await office.start_all()
            mesh = await office.client()

            async def grown() -> bool:
                return sum(node.hosts_bus for node in await mesh.nodes()) == 3

            await eventually(grown, 90, "three bus servers")
            original = office.nodes[1]
            await original.kill9()  # its disk as a power cut leaves it
            clone = office.node_on(machines[3])
            shutil.copytree(original.folder, clone.folder)
            await original.start()
            with pytest.raises(AssertionError, match="did not start"):
                await clone.start()
            await refused(clone, original)
            await runs(mesh, original)
            await eventually(grown, 60, "three bus servers, as before")
        finally:
            office.print_logs()
