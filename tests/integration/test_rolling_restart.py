"""Bus servers that restart in order, one after the other: what is submitted meanwhile waits, or is answered 503."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import pytest

from mesh import subjects
from mesh.bus.client import Bus
from mesh.bus.errors import NotNow
from mesh.bus.streams import count_waiting, declare_lane, lane_config, list_every_lane, list_lanes
from mesh.client import Mesh
from mesh.cluster import raft_meta
from mesh.config import LAN, LOCAL
from mesh.coordination import MeshRecord
from mesh.errors import BusUnavailable, QueztlError
from mesh.membership.mesh_record import create_mesh_record
from mesh.messages import WIRE_VERSION
from node.lifecycle.declaring import declare
from tests.integration.api_harness import Client, V, bridge
from tests.integration.test_api_bus import OnBus
from tests.integration.test_bus_cluster import Trio, _filled, _grow, trio
from tests.integration.test_bus_cold_start import _three, _until_led
from tests.nodes import eventually

__all__ = ["trio"]
pytestmark = pytest.mark.timeout(120)

LANE = ("echo", "any", "normal")
SUBMITTERS = 6


async def test_a_consumer_whose_server_restarts_is_waited_for(trio: Trio) -> None:
    """Its only copy is on that server: the others answer "consumer is offline (10119)" until it is back."""
    bus, system = await _three(trio)
    await declare_lane(bus, *LANE)
    await trio.servers["a"].stop()
    bus = await trio.connect()
    await _until_led(trio, system)
    create = f"CONSUMER.CREATE.WORK.{subjects.lane_durable(*LANE)}.{subjects.lane_filter(*LANE)}"
    body = {"stream_name": "WORK", "config": lane_config(*LANE, LOCAL), "action": ""}
    with pytest.raises(NotNow, match="consumer is offline") as refused:
        await bus.api(create, body, timeout_s=1.0)
    assert (refused.value.http_status, refused.value.error_code) == (503, 10119) and refused.value.retry_after_s > 0

    assert await list_lanes(bus) == {} and await count_waiting(bus) is None, "what could not be asked is not 0"
    with pytest.raises(BusUnavailable, match="did not answer"):
        await list_every_lane(bus)

    lane = asyncio.create_task(declare_lane(bus, *LANE))
    start_of_a_node = asyncio.create_task(declare(bus, LAN, 10**10, print))
    await asyncio.sleep(0)
    await trio.start("a")
    await asyncio.gather(lane, start_of_a_node)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_rolling_restart_of_three_servers_under_submissions_is_never_a_500(trio: Trio) -> None:
    await _filled(trio)
    system = await _grow(trio, bus=await trio.connect())
    await trio.introduce()
    bus = await trio.connect()
    await create_mesh_record(bus, MeshRecord(id="m1", name="queztl", wire_version=WIRE_VERSION, epoch="w0"))
    statuses: dict[int, int] = {}
    stop = asyncio.Event()

    async def submit(api: Client, mesh: Mesh, number: int) -> None:
        """Into ever other lanes: each submission declares its consumer first."""
        count = 0
        while not stop.is_set():
            count += 1
            mesh.submitter._declared.clear()
            requires = {"labels": {f"k{number}": f"v{count % 5}"}}
            body = {"workload_type": "echo", "payload": {"value": count}, "requires": requires}
            status, answer, headers = await api("POST", f"{V}/workload/submit", json=body)
            statuses[status] = statuses.get(status, 0) + 1
            assert status in (202, 503), answer
            assert status == 202 or (int(headers["Retry-After"]) > 0 and answer["error"]["code"] == "bus_unavailable")

    async with Mesh(bus=bus, config=LOCAL) as mesh, bridge(OnBus(mesh)) as api:
        submitters = [asyncio.create_task(submit(api, mesh, number)) for number in range(SUBMITTERS)]
        for name in ("a", "b", "c", "a", "b", "c"):
            await trio.servers[name].stop()
            await trio.start(name)
            await trio.introduce()
            began = time.monotonic()
            await eventually(lambda: _whole(trio, system, bus), 60, "three members and a leader of each stream")
            print(f"{name} restarted, whole after {time.monotonic() - began:.1f} s, answers {statuses}")
            # The next one is stopped under work, not under a queue of retries.
            await eventually(_accepted(statuses, 10 * SUBMITTERS), 60, "submissions succeed")
        stop.set()
        await asyncio.gather(*submitters)
    assert statuses[202] > 50, statuses


def _accepted(statuses: dict[int, int], more: int) -> Callable[[], Awaitable[bool]]:
    """Whether `more` submissions than now have been accepted."""
    count = statuses.get(202, 0) + more
    return lambda: asyncio.sleep(0, statuses.get(202, 0) >= count)


async def _whole(trio: Trio, system: Bus, bus: Bus) -> bool:
    group = raft_meta.leaders_view(await trio.groups(system))
    if group is None or len(group.members) < 3 or not all(group.members.values()):
        return False
    with contextlib.suppress(QueztlError):
        return not await raft_meta.leaderless(bus)
    return False
