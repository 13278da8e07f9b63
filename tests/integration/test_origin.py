"""Work with an origin runs near it while nodes there have free slots, and elsewhere when they are full."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from mesh import subjects
from mesh.bus.streams import list_lanes
from mesh.client import Mesh
from mesh.coordination import Plan
from tests.nodes import Cluster, eventually


async def nodes_of(mesh: Mesh, count: int, origin: str, sleep_s: float = 0.2) -> list[str]:
    """The node that ran each of `count` tasks, submitted at once."""
    handles = [await mesh.start("echo", {"sleep_s": sleep_s}, origin=origin) for _ in range(count)]
    ends = await asyncio.gather(*(handle.end() for handle in handles))
    assert all(end.state == "done" for end in ends)
    return [end.node for end in ends]


async def test_near_nodes_first_and_far_ones_when_those_are_full(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        here = await cluster.node("--region", "eu", "--at", "50.1,8.7", slots=2).start()
        far = await cluster.node("--region", "us", "--at=40.7,-74.0", slots=2).start()
        mesh = await cluster.client()

        async def knows_both() -> bool:
            entry = await mesh.bus.kv(subjects.KV_PLAN).get(subjects.PLAN_KEY)
            plan = msgspec.msgpack.decode(entry.value, type=Plan) if entry else None
            return plan is not None and plan.regions == ("eu", "us") and set(plan.places) == {"eu", "us"}

        await eventually(knows_both, 10, "the plan names both regions")
        # Both nodes must know the lanes of both origins before the test counts.
        await nodes_of(mesh, 4, "eu")
        await nodes_of(mesh, 4, "us")
        assert {("echo", "any@eu", "normal"), ("echo", "any@us", "normal")} <= (await list_lanes(mesh.bus)).keys()
        for origin, near in (("eu", here.id), ("us", far.id), ("48.9,2.3", here.id), ("45.5,-73.6", far.id)):

            async def settled(origin: str = origin, near: str = near) -> bool:
                return [await nodes_of(mesh, 1, origin) for _ in range(5)] == [[near]] * 5

            # A standing pull in the lane of the other region keeps its slot for up to two seconds.
            await eventually(settled, 20, f"work of {origin} runs in {origin}")
        assert set(await nodes_of(mesh, 6, "us", sleep_s=3.0)) == {here.id, far.id}, "a full region borrows"
        await nodes_of(mesh, 1, "mars")
        assert not any("mars" in lane[1] for lane in await list_lanes(mesh.bus))
