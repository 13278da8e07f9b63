"""Three machines: one restarts in order, two are lost for good."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest

from tests.lan.conftest import inside
from tests.lan.office import grown
from tests.nodes import ROOT

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


async def queztl(machine: str, *words: str) -> str:
    """What the command prints on that machine."""
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/run/netns/{machine}", sys.executable, "-m", "api.cli.main", *words, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    return (await process.communicate())[0].decode()
