"""Faults of scaling: leaders that die at any point, providers that lie, hang and fail, lost nodes, clock jumps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from scaling.domain.model import Offer
from scaling.providers.base import Instance, NoCapacity, ProviderUnavailable
from scaling.providers.fake import HANG
from tests.integration.scaling_harness import MESH_ID, Scene, draining, make_scene


@pytest.fixture
async def scene(bus_server: Any) -> AsyncIterator[Scene]:
    made = await make_scene(bus_server)
    yield made
    await made.kill()


async def test_leader_killed_between_intent_and_launch(scene: Scene) -> None:
    """The order is written and never reaches its provider: it is neither lost nor launched twice."""
    fake, reached = scene.machines.providers["fake"], asyncio.Event()

    async def dies_after_writing(fence: int) -> None:
        if fence == 2 and await scene.store.intents():
            reached.set()
            await asyncio.Event().wait()

    await scene.settings(max_nodes=2)
    await scene.submit(100)
    await scene.elect(dies_after_writing)
    async with asyncio.timeout(20):
        await reached.wait()
    await scene.kill()
    (left,) = await scene.store.intents()
    assert left.state == "intended" and not fake.calls("launch")

    await scene.elect()
    await scene.until(lambda: scene.machines.started == 1, "the next leader starts the node")
    await scene.cycles(5)
    assert len(fake.calls("launch")) == 1 and scene.machines.peak == 1
    assert await scene.count("void") == 1
    assert [order.token for order in await scene.store.intents()] == fake.calls("launch") != [left.token]


async def test_leader_killed_after_the_launch_before_it_knows(scene: Scene) -> None:
    """The provider has started the node and the answer is lost: the next leader finds it by its token."""
    fake = scene.machines.providers["fake"]
    scene.machines.joins = False
    fake.script.afterwards = [HANG]
    await scene.settings(max_nodes=2)
    await scene.submit(100)
    await scene.elect()
    await scene.until(lambda: scene.machines.started == 1, "one is started")
    await scene.kill()
    (left,) = await scene.store.intents()
    assert left.state == "intended"

    await scene.elect()
    await scene.cycles(3)
    (found,) = await scene.store.intents()
    assert (found.token, found.state, found.instance) == (left.token, "launched", "i1")
    assert fake.calls("launch") == [left.token] and await scene.count("found") == 1


async def test_leader_killed_during_a_drain(scene: Scene) -> None:
    """A node that was ordered to leave still works: the next leader knows, and starts no other node for it."""
    fake, machines = scene.machines.providers["fake"], scene.machines
    await scene.settings(max_nodes=2)
    await scene.submit(100)
    await scene.elect()
    await scene.until(lambda: "i1" in machines.members, "one is started")
    machines.obeys = False
    await scene.work_off()
    await scene.until(lambda: machines.leave_orders, "it gets a leave order")
    await scene.kill()
    first, machines.leave_orders = machines.leave_orders[0], []

    fence = await scene.elect()
    await scene.until(lambda: machines.leave_orders, "it gets another leave order")
    assert machines.leave_orders[0] == ("i1", fence) and fence > first[1]
    machines.members["i1"] = draining(machines.members["i1"])
    await scene.cycles(5)
    sent = len(machines.leave_orders)
    await scene.cycles(5)
    assert len(machines.leave_orders) == sent, "a draining node gets no further order"
    assert not fake.calls("terminate"), "a draining node is not terminated"
    del machines.members["i1"]
    await scene.until(lambda: not fake.running, "its machine is ended once it has left")
    assert len(fake.calls("launch")) == 1


async def test_a_leader_that_was_superseded_orders_nothing(scene: Scene) -> None:
    fake = scene.machines.providers["fake"]

    async def superseded(fence: int) -> None:
        scene.machines.fence = 99

    await scene.settings(max_nodes=5)
    await scene.submit(100)
    await scene.elect(superseded)
    await scene.until(lambda: len(fake.calls("list")) > 5, "it lists the instances")
    assert not fake.calls("launch") and not fake.calls("terminate")


async def test_two_leaders_at_once_start_no_more_than_one_would(scene: Scene) -> None:
    """Both believe that they lead; the bus refuses the second write."""
    await scene.settings(max_nodes=3)
    await scene.submit(100)
    fence = await scene.elect()
    await scene.elect()
    scene.machines.fence = fence
    await scene.until(lambda: scene.machines.started == 2, "two nodes are started")
    await scene.cycles(10)
    assert scene.machines.peak == 2


async def test_a_provider_that_hangs_does_not_block_others(scene: Scene) -> None:
    hanging = scene.machines.provider("deaf", offers=[Offer("cheap", "deaf", start_s=0.0)])
    hanging.script.lists = [HANG] * 100
    hanging.script.launches = [HANG] * 100
    await scene.settings(max_nodes=4, providers=["deaf", "fake"], call_timeout_s=0.2, decide_every_s=0.1)
    await scene.submit(200)
    await scene.elect()
    await scene.until(lambda: hanging.calls("launch"), "it gets a launch")
    await scene.cycles(5)
    status = await scene.store.status()
    assert status is not None and any("deaf's list did not come" in note for note in status["notes"])
    # Launches without an answer may have started nodes: they count, and are not ordered a second time.
    unknown = len(set(hanging.calls("launch")))
    assert len(hanging.calls("launch")) == unknown <= 3
    assert unknown + scene.machines.started <= 3
    hanging.script.lists.clear()
    hanging.script.launches.clear()
    await scene.until(lambda: scene.machines.started == 3, "the rest is started once it answers")


async def test_a_provider_that_fails_partly(scene: Scene) -> None:
    """Refusals, and errors before and after a launch: in the end the target runs, and each node has its order."""
    fake = scene.machines.providers["fake"]
    fake.script.launches = [NoCapacity("none left"), None, RuntimeError("a bug"), None, ProviderUnavailable("cut")]
    fake.script.afterwards = [None, ProviderUnavailable("the answer was lost")]
    fake.script.lists = [ProviderUnavailable("cut"), None, RuntimeError("a bug")]
    await scene.settings(max_nodes=5, breaker_failures=9)
    await scene.submit(300)
    await scene.elect()
    await scene.until(lambda: scene.machines.started == 4, "all nodes are started in the end")
    await scene.cycles(25)
    assert scene.machines.started == 4 == scene.machines.peak
    intents = await scene.store.intents()
    assert sorted(order.token for order in intents) == sorted(instance.token for instance in fake.running.values())
    assert await scene.count("refused") == 1


async def test_a_provider_that_lies(scene: Scene) -> None:
    """It lists machines that it does not have, and hides one: nothing beyond its own harm happens."""
    fake = scene.machines.providers["fake"]
    fake.script.claims = [
        Instance("ghost", "xghost", MESH_ID, launched_at=time.time()),
        Instance("twin", "", MESH_ID, launched_at=9e12),
        Instance("other", "xother", "another-mesh"),
    ]
    await scene.settings(max_nodes=3)
    await scene.submit(200)
    await scene.elect()
    await scene.until(lambda: scene.machines.started == 2, "two nodes are started")
    fake.script.hides = {next(iter(fake.running.values())).token}
    await scene.until(lambda: "ghost" in fake.calls("terminate"), "an instance without an order is ended")
    await scene.cycles(25)
    assert {"ghost", "twin"} <= set(fake.calls("terminate")) and "other" not in fake.calls("terminate")
    # The hidden node is in the mesh and works: the list of its provider does not matter.
    assert scene.machines.started == 2 == scene.machines.peak and len(await scene.store.intents()) == 2


async def test_an_orphan_is_found_and_ended_and_a_lost_node_adopted(scene: Scene) -> None:
    fake = scene.machines.providers["fake"]
    for token, joins in (("xorphan", False), ("xlost", True)):
        scene.machines.joins = joins
        made = Instance(f"i-{token}", token, MESH_ID, "small", launched_at=time.time())
        fake.running[made.id] = made
        if joins:
            scene.machines._launched(made)
    await scene.settings(max_nodes=5, min_life_s=600.0)
    await scene.elect()
    await scene.until(lambda: set(fake.running) == {"i-xlost"}, "the orphan is ended")
    await scene.cycles(3)
    assert [(order.token, order.state) for order in await scene.store.intents()] == [("xlost", "joined")]
    assert not scene.machines.leave_orders


async def test_a_node_that_never_joins_is_replaced_once_and_its_offer_then_skipped(scene: Scene) -> None:
    fake = scene.machines.providers["fake"]
    scene.machines.joins = False
    await scene.settings(max_nodes=2)
    await scene.submit(100)
    await scene.elect()
    await scene.until(lambda: len(fake.calls("terminate")) >= 2, "both are terminated")
    await scene.cycles(20)
    assert len(fake.calls("launch")) == 2 and scene.machines.peak == 1 and not fake.running
    assert not await scene.store.intents()
    status = await scene.store.status()
    assert status is not None and "failed 2 times, left alone" in str(status["offers"][0]["refused"])


async def test_a_node_that_never_joins_is_replaced_from_another_offer(scene: Scene) -> None:
    """Both offers cost the same, so the first by name is taken, and the other once that is skipped."""
    scene.machines.joins = False
    good = scene.machines.provider("good", offers=[Offer("spare", "good")])
    await scene.settings(max_nodes=2, providers=["fake", "good"])
    await scene.submit(100)
    await scene.elect()
    await scene.until(lambda: len(scene.machines.providers["fake"].calls("launch")) == 2, "it is tried twice")
    scene.machines.joins = True
    await scene.until(lambda: good.running, "then the other offer is taken")
    await scene.cycles(5)
    assert len(scene.machines.providers["fake"].calls("launch")) <= 2 and scene.machines.started == 1


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0, -86400.0 * 40])
async def test_a_clock_that_jumped_ends_no_node_and_starts_none(scene: Scene, jump_s: float) -> None:
    """The clock of the next leader shows another time; it still scales in when there is no work."""
    fake = scene.machines.providers["fake"]

    def jumped() -> Callable[[], float]:
        return lambda: time.time() + jump_s

    await scene.settings(max_nodes=3)
    await scene.submit(100)
    await scene.elect()
    await scene.until(lambda: scene.machines.started == 2, "two nodes are started")
    scene.machines.joins = False
    await scene.kill()
    await scene.elect(make_clock=jumped)
    await scene.cycles(10)
    assert scene.machines.started == 2 == scene.machines.peak and not fake.calls("terminate")
    await scene.work_off()
    await scene.until(lambda: scene.machines.started == 0, "it scales in")
    assert len(fake.calls("launch")) == 2


async def test_a_restart_of_the_bus_changes_nothing(scene: Scene) -> None:
    fake = scene.machines.providers["fake"]
    await scene.settings(max_nodes=3)
    await scene.submit(100)
    await scene.elect()
    await scene.until(lambda: scene.machines.started == 2, "two nodes are started")
    scene.server.kill()
    await scene.server.start()
    await scene.cycles(3)
    assert scene.machines.started == 2 == scene.machines.peak and not fake.calls("terminate")
