"""`queztl doctor` on a machine that sees the announcements of another and can't reach it: no route, or a firewall."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.lan.conftest import inside, ip
from tests.lan.office import Office
from tests.nodes import ROOT

pytestmark = [pytest.mark.lan, pytest.mark.timeout(120)]


def test_an_address_out_of_reach_and_a_firewall_are_told_apart(lan: list[str], tmp_path: Path) -> None:
    inside(lan[-1], _trouble(lan, tmp_path))


async def _trouble(machines: list[str], folder: Path) -> None:
    """Routes simulate dropped packets: a route that drops the answers looks like a firewall from outside."""
    host, looker = machines[0], machines[1]
    async with Office(folder, machines) as office:
        node = office.node_on(host)
        await node.start()
        bus = f"nats://10.77.0.1:{office.bus_port}"
        assert f"The bus answers at {bus}" in await _doctor(looker, office.mesh_name)

        ip("-n", looker, "route", "add", "unreachable", "10.77.0.1/32")
        assert f"no route to {bus}" in await _doctor(looker, office.mesh_name)
        ip("-n", looker, "route", "del", "unreachable", "10.77.0.1/32")

        ip("-n", host, "route", "add", "blackhole", "10.77.0.2/32")
        report = await _doctor(looker, office.mesh_name)
        assert f"nothing answers: {bus}. A firewall" in report and "allow TCP" in report
        ip("-n", host, "route", "del", "blackhole", "10.77.0.2/32")

        # A missing route for multicast is no problem: each packet is sent on a named card.
        ip("-n", looker, "route", "add", "unreachable", "224.0.0.0/4")
        assert f"The bus answers at {bus}" in await _doctor(looker, office.mesh_name)


async def _doctor(machine: str, mesh: str) -> str:
    """The findings of the doctor on that machine, as text."""
    process = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/run/netns/{machine}", sys.executable, "-m", "api.cli.main", "doctor", "--mesh", mesh,
        "--json", "--interface", "eth0", cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    return " ".join(f"{finding['what']} {finding['what_to_do']}" for finding in json.loads(out)["findings"])
