"""A node that gives no sign of life while its bus server serves: the server stays where it is."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from pathlib import Path

import pytest

from mesh.cluster.controller import read_servers
from mesh.config import LOCAL
from tests import invariants
from tests.faults.mixed import echoed
from tests.invariants import Witness
from tests.lan.conftest import inside
from tests.nodes import Cluster

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(200)]

#: Beyond `bus_server_gone_s` the controller takes one step every 0.25 to 2 s: this is enough for several of them.
STEPS_S = 6.0


def test_the_bus_server_of_a_frozen_daemon_is_not_replaced_while_it_answers(lan: list[str], tmp_path: Path) -> None:
    """So it is with a daemon that takes long to join after a rescue: its server is the only copy of everything.

    Replaced, the server would run on outside the group, with the clients that are connected to it: nobody could renew
    the lease, and the daemon could not join through its own server.
    """
    inside(lan[0], _freeze(lan[1], tmp_path))


async def _freeze(far: str, folder: Path) -> None:
    async with Cluster(folder, interface="eth0") as cluster:
        try:
            host = await cluster.node("--preset", "local").start()
            mesh = await cluster.client()
            witness = await Witness(mesh.bus).start()
            other = cluster.node("--preset", "local")
            other.command = ("nsenter", f"--net=/run/netns/{far}", sys.executable, "-m", "node")
            await other.start()
            before = await read_servers(mesh.bus)
            host.send(signal.SIGSTOP)
            try:
                await cluster.leader_other_than(mesh.bus, host)
                accepted = {}
                until = time.monotonic() + LOCAL.bus_server_gone_s + STEPS_S
                while time.monotonic() < until:
                    handle = await mesh.start("echo", {"value": len(accepted)})
                    accepted[handle.id] = echoed(len(accepted))
                    await asyncio.sleep(0.25)  # a pulse: the bus must answer all the time
            finally:
                host.send(signal.SIGCONT)
            assert [server.name for server in await read_servers(mesh.bus)] == [server.name for server in before]
            await invariants.check(mesh, accepted, witness)
        finally:
            cluster.print_logs()
