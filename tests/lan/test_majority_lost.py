"""Two of three bus servers are lost for good, then the survivors restart: they report what they wait for, and one
command continues with what is left."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import invariants
from tests.lan.conftest import inside
from tests.lan.office import Scene, grown
from tests.nodes import ROOT, NodeProcess, eventually

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(400)]

TASKS = 50
#: Until the survivor reports what it waits for: its bus server must have started, and the others not have answered.
TELLS_WITHIN_S = 30.0
WHOLE_WITHIN_S = 60.0


@pytest.mark.long
def test_survivors_that_restarted_are_rescued_by_the_command_they_show(office: list[str], tmp_path: Path) -> None:
    inside(office[-1], _rescue([*office[:4], office[-1]], tmp_path))


async def _rescue(machines: list[str], folder: Path) -> None:
    async with grown(folder, machines) as scene:
        office = scene.office
        await scene.submit(TASKS)
        servers = await scene.voters()
        survivor, lost = servers[0], servers[1:]
        other = next(node for node in office.nodes if node not in servers)
        await asyncio.gather(*(node.kill9() for node in office.nodes))
        starting = [asyncio.create_task(node.start()) for node in (survivor, other)]
        try:
            await _tells(scene, survivor, lost)
            code, output = await _queztl(scene, survivor, "bus", "--url", survivor.api)
            command = output.rpartition("never come back: ")[2].strip()
            assert code == 3 and command.startswith("queztl bus rescue --data "), output
            code, output = await _queztl(scene, survivor, "doctor", "--url", survivor.api, "--interface", "eth0")
            assert all(node.id in output for node in lost) and command in output, output
            began = time.monotonic()
            code, output = await _queztl(scene, survivor, *shlex.split(command)[1:])
            assert code == 0 and "done: the mesh continues" in output, output
            await asyncio.gather(*starting)
        finally:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
        await scene.until_safe(servers=1, within_s=WHOLE_WITHIN_S)
        print(
            f"| two of three servers lost, survivors restarted | whole again after {time.monotonic() - began:.0f} s |"
        )
        await scene.submit(10)
        await invariants.check(scene.mesh, scene.accepted, scene.witness)


async def _tells(scene: Scene, survivor: NodeProcess, lost: list[NodeProcess]) -> None:
    """Its REST status says which bus servers it knows and reaches, and how many it needs."""
    document: dict[str, Any] = {}

    async def reports() -> bool:
        nonlocal document
        _, output = await _queztl(scene, survivor, "bus", "--json", "--url", survivor.api)
        document = json.loads(output)
        return bool((document.get("waiting") or {}).get("if_lost"))

    await eventually(reports, TELLS_WITHIN_S, lambda: f"what it waits for: {document}")
    waiting = document["waiting"]
    assert waiting["members"] == sorted(node.id for node in (survivor, *lost))
    assert waiting["reached"] == [survivor.id] and waiting["needed"] == 2
    assert all(node.id in waiting["reason"] for node in lost)


async def _queztl(scene: Scene, node: NodeProcess, *argv: str) -> tuple[int, str]:
    """(exit code, stdout) of a command on the machine of that node."""
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/run/netns/{scene.office.machine_of(node)}", sys.executable, "-m", "api.cli.main", *argv,
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return int(process.returncode or 0), out.decode()
