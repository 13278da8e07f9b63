"""The scaler on a real bus: it follows the load, keeps its limits, and journals its reasons."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from mesh.bus.errors import WrongSequence
from mesh.errors import BadInput
from mesh.membership.member import Member
from scaling.decision import launch_guard
from scaling.domain.model import ON_DEMAND, Offer
from scaling.log.decision_record import replay
from scaling.state import settings
from scaling.state.memory import State
from scaling.state.settings import ManualTarget
from tests.integration.scaling_harness import Scene, make_scene, member
from tests.nodes import eventually

PAID = Offer("m5", "cloud", "m5", market=ON_DEMAND, price_usd_h=1.0, start_s=1.0)


@pytest.fixture
async def scene(bus_server: Any) -> AsyncIterator[Scene]:
    made = await make_scene(bus_server)
    yield made
    await made.kill()


async def test_nothing_is_started_in_a_mesh_without_max_nodes(scene: Scene) -> None:
    await scene.submit(500)
    await scene.elect()

    async def off() -> bool:
        status = await scene.store.status()
        return status is not None and status["state"] == "off"

    await eventually(off, 10, "the status of the scaler is off")
    fake = scene.machines.providers["fake"]
    assert not fake.call_log and not scene.machines.started


async def test_it_follows_the_load_up_to_its_limit_and_back_with_reasons(scene: Scene) -> None:
    await scene.settings(max_nodes=4)
    await scene.submit(200)
    await scene.elect()
    await scene.until(lambda: scene.machines.started == 3, "three nodes are started beside the unmanaged one")
    await scene.cycles(3)
    assert scene.machines.peak == 3 and "person" in scene.machines.members
    await scene.work_off()
    await scene.until(lambda: scene.machines.started == 0, "the idle nodes are drained")
    assert {node for node, _ in scene.machines.leave_orders} == {"i1", "i2", "i3"}
    assert "person" in scene.machines.members
    await scene.cycles(3)
    assert not await scene.store.intents()

    happened = await scene.happened()
    events = [what for what, _ in happened]
    for what in ("intended", "launched", "joined", "draining", "ended"):
        assert events.count(what) == 3, (what, events)
    decisions = await scene.store.decisions(100)
    assert decisions and all(pool["trail"] for decision in decisions for pool in decision["pools"])
    assert max(pool["target"] for decision in decisions for pool in decision["pools"]) == 4
    for decision in decisions:
        made, same = replay(decision)
        assert same and made.at == decision["at"]


async def test_busy_nodes_are_not_drained(scene: Scene) -> None:
    await scene.settings(max_nodes=4, cpu_down=0.7)
    await scene.submit(200)
    await scene.elect()
    await scene.until(lambda: scene.machines.started == 3, "three nodes are started")
    for node in ("i1", "i2"):
        token = scene.machines.providers["fake"].running[node].token
        scene.machines.members[node] = member(node, token, running=1)
    await scene.work_off()
    await scene.until(lambda: scene.machines.started == 2, "the idle node is drained")
    await scene.cycles(10)
    assert set(scene.machines.providers["fake"].running) == {"i1", "i2"}


async def test_a_mesh_without_a_key_never_starts_paid_nodes(scene: Scene) -> None:
    cloud = scene.machines.provider("cloud", offers=[PAID], paid=True)
    await scene.settings(max_nodes=9, providers=["cloud"])
    await scene.submit(200)
    await scene.elect(has_key=False)
    await scene.cycles(10)
    assert not cloud.calls("launch") and cloud.calls("offers")
    status = await scene.store.status()
    assert status is not None and any(launch_guard.NO_KEY in note for note in status["notes"])


async def test_the_budget_limit_is_never_exceeded(scene: Scene) -> None:
    cloud = scene.machines.provider("cloud", offers=[PAID], paid=True)
    await scene.settings(max_nodes=50, providers=["cloud"], budget_usd_h=2.5)
    await scene.submit(400)
    await scene.elect(has_key=True)
    await scene.until(lambda: len(cloud.running) == 2, "the nodes that the budget allows are started")
    await scene.cycles(10)
    assert len(cloud.calls("launch")) == 2
    status = await scene.store.status()
    assert status is not None
    assert status["cost"]["running_usd_h"] == 2.0 and status["cost"]["room_usd_h"] == 0.5
    assert 0 < status["cost"]["spent_today_usd"] < 1 and status["cost"]["budget_usd_day"] is None


async def test_panic_ends_all_paid_nodes_at_once_and_no_others(scene: Scene) -> None:
    cloud = scene.machines.provider("cloud", offers=[PAID], paid=True)
    fake = scene.machines.providers["fake"]
    await scene.settings(max_nodes=3, providers=["cloud"])
    await scene.submit(400)
    await scene.elect(has_key=True)
    await scene.until(lambda: len(cloud.running) == 2, "paid nodes are started")
    await scene.settings(max_nodes=6, providers=["cloud", "fake"])
    await scene.store.put_panic(True, time.time())
    await scene.until(lambda: not cloud.running, "all paid nodes are ended")
    await scene.until(lambda: len(fake.running) == 5, "unpaid nodes take over")
    launched = len(cloud.calls("launch"))
    await scene.cycles(5)
    assert len(cloud.calls("launch")) == launched and not cloud.running
    await scene.store.put_panic(False, time.time())
    assert await scene.store.panic() is None


async def test_a_manual_target_holds_until_it_expires(scene: Scene) -> None:
    await scene.settings(max_nodes=8)
    await scene.elect()
    current = await scene.store.policy()
    assert current is not None
    manual = settings.read_manual({"delta": 2, "for_s": 3.0}, 1, current, time.time())
    await scene.store.put_manual_target(manual)
    await scene.until(lambda: scene.machines.started == 2, "two more nodes by hand")
    await scene.until(lambda: scene.machines.started == 0, "the manual target has expired")
    with pytest.raises(BadInput) as caught:
        settings.read_manual({"target": 99, "delta": 1, "provider": "moon", "for_s": -1, "x": 1}, 1, current, 0.0)
    assert {fault.field for fault in caught.value.faults} == {"x", "target", "for_s", "provider"}


async def test_concurrent_changes_of_the_policy_do_not_undo_each_other(scene: Scene) -> None:
    await scene.settings(max_nodes=3)
    seen = await scene.store.policy()
    assert seen is not None
    first = settings.changed(seen, {"max_nodes": 4}, None, settings.BY_HAND, "a", 1.0)
    second = settings.changed(seen, {"max_nodes": 5}, None, settings.BY_HAND, "b", 2.0)
    await scene.store.put_policy(seen, first)
    with pytest.raises(WrongSequence, match="version 2"):
        await scene.store.put_policy(seen, second)
    kept = await scene.store.versions()
    assert [(version.version, version.settings["max_nodes"]) for version in kept] == [(2, 4), (1, 3)]
    await scene.store.put_manual_target(ManualTarget(target=1, until=5.0))
    assert (await scene.store.manual_target()) == ManualTarget(target=1, until=5.0)


async def test_the_offer_with_the_lowest_measured_cost_per_work_is_taken(scene: Scene) -> None:
    """One offer is half as fast for a fifth less, so the more expensive one costs less per unit of work."""
    offers = (PAID, replace(PAID, id="m7", type="m7", price_usd_h=0.8))
    cloud = scene.machines.provider("cloud", paid=True, offers=offers)
    wanted: dict[str, Any] = {"providers": ["cloud"], "backlog_target_s": 1.0}
    await scene.settings(max_nodes=2, **wanted)
    await scene.store.put_state(State(speeds={"m5": {"echo": 7200.0}, "m7": {"echo": 3600.0}}))
    await scene.submit(100)
    await scene.elect(has_key=True)
    await scene.until(lambda: cloud.running, "one node is rented")
    assert [order.offer for order in cloud.orders] == ["m5"]
    # The measured speed of its own node is then lower than that of the cheap offer.
    (node,) = cloud.running
    rented = scene.machines.members[node]
    assert rented.heartbeat is not None
    heartbeat = msgspec.structs.replace(rented.heartbeat, rates={"echo": (2.0, 20)})
    scene.machines.members[node] = Member(rented.record, "up", heartbeat)

    async def known() -> bool:
        return (await scene.store.state()).speeds["m5"]["echo"] == 1800.0

    await eventually(known, 30, "its speed is known")
    await scene.settings(max_nodes=3, **wanted)
    await scene.until(lambda: len(cloud.running) == 2, "another node is rented")
    assert [order.offer for order in cloud.orders] == ["m5", "m7"]
