"""A machine gets another address while its node runs, also that of the bus: nothing is restarted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mesh.client import Mesh, TaskHandle
from mesh.cluster.controller import read_servers
from mesh.errors import BusUnavailable, QueztlError
from tests import invariants
from tests.faults.mixed import echoed
from tests.invariants import Witness
from tests.lan.conftest import inside, ip
from tests.lan.office import Office
from tests.nodes import eventually, records

pytestmark = [pytest.mark.lan, pytest.mark.faults, pytest.mark.timeout(150)]


def test_another_address_without_a_restart(office: list[str], tmp_path: Path) -> None:
    inside(office[-1], _move(office, tmp_path))


async def started(mesh: Mesh, payload: dict[str, Any], **options: Any) -> TaskHandle:
    """Submit under a key until it is accepted: the connection may break while the machine moves."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await mesh.start("echo", payload, **options)
            except BusUnavailable:
                await asyncio.sleep(0.1)


async def _move(machines: list[str], folder: Path) -> None:
    """Two machines: the guest moves, then the host of the bus does."""
    async with Office(folder, [*machines[:2], machines[-1]]) as office:
        try:
            host, guest = office.node_on(machines[0]), office.node_on(machines[1])
            await host.start()
            await guest.start()
            mesh = await office.client()
            # The client must know the new address of the host, as any client does that has both addresses.
            mesh.bus.learn([f"nats://10.77.0.101:{office.bus_port}"])
            witness = await Witness(mesh.bus).start()
            accepted = {}
            for node, machine, address in ((guest, machines[1], "10.77.0.102"), (host, machines[0], "10.77.0.101")):
                ip("-n", machine, "addr", "del", f"10.77.0.{machines.index(machine) + 1}/24", "dev", "eth0")
                ip("-n", machine, "addr", "add", f"{address}/24", "dev", "eth0")

                async def known(node=node, address=address) -> bool:
                    try:
                        return (await records(mesh.bus))[node.id].addresses == (address,)
                    except QueztlError:
                        return False

                await eventually(known, 60, f"the record names {address}")
                options = {"requires": {"node": node.id}, "idempotency_key": address}
                handle = await started(mesh, {"value": address}, **options)
                accepted[handle.id] = echoed(address)
                assert (await handle.end(60)).node == node.id
            assert [server.client_urls for server in await read_servers(mesh.bus)] == [
                (f"nats://10.77.0.101:{office.bus_port}",)
            ]
            await invariants.check(mesh, accepted, witness)
        finally:
            office.print_logs()
