"""The node of the only bus server dies: the others report it at once, and the mesh goes on when it is back."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mesh.cluster.controller import forget_server, read_servers
from tests import invariants
from tests.faults.mixed import echoed
from tests.integration.queztl_process import queztl
from tests.invariants import Witness
from tests.nodes import Cluster, eventually
from tests.ports import free_port

pytestmark = [pytest.mark.faults]


def network(api: str) -> dict:
    """`network/status` of a node."""
    with urllib.request.urlopen(f"{api}/api/v1.2/network/status", timeout=10) as answer:
        return dict(json.load(answer))


def refusal(url: str) -> tuple[int, dict, str]:
    """(status, error document, Retry-After) of a request that is refused."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            raise AssertionError(f"answered {answer.status}")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(json.load(error)), error.headers["Retry-After"]


async def test_a_server_record_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    """The leader deletes the record of a replaced server, possibly just after the server's node restarted."""
    async with Cluster(tmp_path) as cluster:
        (host,) = await cluster.start(1)
        mesh = await cluster.client()
        (before,) = await read_servers(mesh.bus)
        await forget_server(mesh.bus, host.id, before.name)

        async def written() -> bool:
            return [record.name for record in await read_servers(mesh.bus)] == [before.name]

        await eventually(written, 20, "the record of the server that runs")


async def test_the_host_of_the_bus_dies_and_comes_back(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        host, other = await cluster.start(1, 1)
        mesh = await cluster.client()
        witness = await Witness(mesh.bus).start()
        accepted = {}
        for number in range(20):
            handle = await mesh.start("echo", {"value": number, "sleep_s": 0.2})
            accepted[handle.id] = echoed(number)
        await witness.until(lambda: witness.ends, 20, "a task ends")
        await host.kill9()
        asking = asyncio.create_task(asyncio.to_thread(refusal, f"{other.api}/api/v1.2/workload/{handle.id}/status"))
        while "bus" in (document := await asyncio.to_thread(network, other.api)):
            if document["bus"]["safety"].startswith("no bus server answers"):
                break
            await asyncio.sleep(0.05)
        document = await asyncio.to_thread(network, other.api)
        assert "start the node there" in document["bus"]["safety"] and document["registry"]["total_nodes"] == 2
        assert document["alarms"][0].startswith("The bus does not answer")
        assert document["queue"]["tasks"] is None, "nobody could ask"
        shown = await queztl("bus", url=other.api)
        assert "not known: the bus did not answer" in shown.out
        status, refused, retry_after = await asking
        standstill = document["bus"]["standstill"]
        assert (status, refused["error"]["message"][1:]) == (503, f"{standstill[1:]}.") and int(retry_after) > 2
        assert document["bus"]["standstill"] == document["bus"]["safety"]
        # The command waits three seconds for an answer: the node must not have waited for its bus.
        shown = await queztl("nodes", url=other.api)
        assert shown.code == 0 and "The bus does not answer" in shown.out
        refused = await queztl("submit", "echo", "{}", url=other.api)
        assert refused.code != 0 and "no bus server answers" in refused.err and "Traceback" not in refused.err
        await host.start()
        await invariants.check(mesh, accepted, witness)
        document = await asyncio.to_thread(network, other.api)
        assert document["bus"]["safety"].startswith("1 copy") and document["alarms"] == []
        assert document["bus"]["standstill"] == "" and document["queue"]["tasks"] == 0


async def test_a_client_of_a_node_finds_the_bus_at_another_address(tmp_path: Path) -> None:
    """The port stands in for the address; the node is asked again where its bus is."""
    async with Cluster(tmp_path) as cluster:
        (host,) = await cluster.start(1)
        mesh = await cluster.client(host.api)
        assert await mesh.submit("echo", {"value": 1}, wait_s=20) == {"value": 1}
        await host.kill9()
        moved = host.arguments.index("--bus-port") + 1
        host.arguments = (*host.arguments[:moved], str(free_port()), *host.arguments[moved + 1 :])
        await host.start()

        async def connected() -> bool:
            return mesh.bus.connected

        await eventually(connected, 20, "the client is connected again")
        assert await mesh.submit("echo", {"value": 2}, wait_s=20) == {"value": 2}
