"""The scaler over HTTP, with a real bus and a leader that decides: status, policy, manual target, panic, cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mesh.kinds.base import Resources
from scaling.domain.model import ON_DEMAND, Offer
from scaling.observation.mesh_access import MeshAccess
from scaling.providers.base import Provider
from scaling.service import ScalingService
from tests.integration.api_harness import Client, Memory, V, bridge, fields
from tests.integration.scaling_harness import MESH_ID, Scene, make_scene
from tests.nodes import eventually

PAID = Offer("m5", "cloud", "m5", region="eu", market=ON_DEMAND, price_usd_h=1.2, priced_on="2026-01-01", start_s=1.0)
STATUS, POLICY = f"{V}/autoscaler/status", f"{V}/autoscaler/policy"
MANUAL, COST = f"{V}/scale/manual", f"{V}/cost"


@pytest.fixture
async def scene(bus_server: Any) -> AsyncIterator[Scene]:
    made = await make_scene(bus_server)
    yield made
    await made.kill()


@pytest.fixture
async def api(scene: Scene) -> AsyncIterator[Client]:
    async def confirm() -> int:
        return 0

    providers: dict[str, Provider] = {}
    access = MeshAccess(
        scene.bus, "person", MESH_ID, "test", lambda: tuple(scene.machines.members.values()), confirm, tuple,
        {"echo": Resources()}, providers,
    )  # fmt: skip
    memory = Memory()
    memory.scaler = ScalingService(scene.store, access)
    async with bridge(memory) as client:
        yield client


async def seen(api: Client, condition: Any, why: str) -> dict[str, Any]:
    """Poll the status until `condition` holds; returns it."""
    found: dict[str, Any] = {}

    async def looked() -> bool:
        nonlocal found
        status, found, _ = await api("GET", STATUS)
        assert status == 200
        return bool(condition(found))

    await eventually(looked, 30, lambda: f"{why}; {found}")
    return found


async def test_a_mesh_without_max_nodes_does_not_scale(api: Client) -> None:
    status, document, _ = await api("GET", STATUS)
    assert (status, document["state"], document["policy"]["version"]) == (200, "off", 0)
    assert "--max-nodes" in document["reason"] and document["budget"] is None
    assert (await api("GET", f"{V}/autoscaler/decisions"))[1] == {"decisions": []}
    assert (await api("GET", f"{V}/autoscaler/forecast"))[1] == {"at": None, "pools": []}
    assert (await api("GET", COST))[1]["running"] == []
    assert (await api("GET", POLICY))[1]["effective"]["max_nodes"] == 100
    status, answer, _ = await api("POST", MANUAL, json={"target": 3})
    assert (status, fields(answer)) == (400, {"policy"}) and "--max-nodes" in answer["error"]["message"]


async def test_status_and_decisions_explain_what_it_does(scene: Scene, api: Client) -> None:
    await scene.settings(max_nodes=4)
    waiting = (await api("GET", STATUS))[1]
    assert waiting["state"] == "waiting" and "leader" in waiting["reason"]
    await scene.submit(200)
    await scene.elect()
    document = await seen(api, lambda found: sum(pool["ready"] for pool in found["pools"]) == 4, "four nodes are seen")
    assert document["state"] == "on" and document["master"] == "person"
    assert [launch_order["provider"] for launch_order in document["orders"]] == ["fake"] * 3
    assert document["offers"][0]["id"] == "small" and all(
        pool_decision["trail"] for pool_decision in document["decision"]
    )

    listed = (await api("GET", f"{V}/autoscaler/decisions?limit=200"))[1]["decisions"]
    started = [decision for decision in listed if any(pool["launches"] for pool in decision["pools"])]
    assert started and all("from" not in decision for decision in listed)
    assert [decision["id"] for decision in listed] == sorted((decision["id"] for decision in listed), reverse=True)
    status, decision, _ = await api("GET", f"{V}/autoscaler/decisions/{started[-1]['id']}")
    assert (status, decision["replayed"]) == (200, True) and decision["from"]["observation"]["pools"]
    assert any("start" in line for line in decision["says"]) and "same" in decision["says"][-1]
    wrongs = [(number, 404) for number in ("0", "00", "999999", "x", "-1", "9" * 18, "9" * 19, "9" * 5000)]
    wrongs += [(f"?limit={number}", 400) for number in ("0", "x", "-1", "201", "9" * 19, "9" * 5000)]
    for wrong, code in wrongs:
        path = f"{V}/autoscaler/decisions{wrong if wrong[0] == '?' else '/' + wrong}"
        assert (await api("GET", path))[0] == code, wrong


async def test_the_policy_is_validated_versioned_and_followed(scene: Scene, api: Client) -> None:
    bad = {"settings": {"max_nodes": -1, "cpu_up": "much", "wishes": 3}, "enabled": "yes", "x": 1}
    status, answer, _ = await api("PUT", POLICY, json=bad)
    assert (status, fields(answer)) == (400, {"enabled", "x"})
    status, answer, _ = await api("PUT", POLICY, json={"settings": bad["settings"]})
    assert (status, fields(answer)) == (400, {"cpu_up", "wishes"})
    status, answer, _ = await api("PUT", POLICY, json={"settings": {"max_nodes": 0, "min_nodes": 3}})
    assert (status, fields(answer)) == (400, {"min_nodes"})
    assert (await api("PUT", POLICY, json={}))[0] == 400
    assert (await api("GET", POLICY))[1]["version"] == 0, "a refused change changes nothing"

    settings = {"max_nodes": 6, "budget_usd_h": 2.5}
    status, first, _ = await api("PUT", POLICY, json={"settings": settings, "enabled": True})
    assert (status, first["version"], first["by"], first["settings"]) == (200, 1, "hand", settings)
    back = {"max_nodes": None, "budget_usd_h": None}
    status, second, _ = await api("PUT", POLICY, json={"settings": back, "version": 1})
    assert (status, second["version"], second["effective"]["max_nodes"]) == (200, 2, 100)
    assert second["effective"]["budget_usd_h"] is None and second["enabled"]
    status, answer, _ = await api("PUT", POLICY, json={"enabled": False, "version": 1})
    assert status == 409 and "version 2" in answer["error"]["message"]
    whole = (await api("GET", POLICY))[1]
    assert [version["version"] for version in whole["versions"]] == [2, 1] and whole["version"] == 2
    assert (await api("PUT", POLICY, json={"enabled": False}))[1]["enabled"] is False
    document = (await api("GET", STATUS))[1]
    assert document["state"] == "off" and "policy 3" in document["reason"]


async def test_a_manual_target_holds_until_it_is_cleared(scene: Scene, api: Client) -> None:
    await scene.settings(max_nodes=5, to_zero_after_s=0.0)
    await scene.elect()
    status, answer, _ = await api("POST", MANUAL, json={"target": 9, "for_s": 0, "provider": "moon", "y": 1})
    assert (status, fields(answer)) == (400, {"target", "for_s", "provider", "y"})
    assert (await api("POST", MANUAL, json={"target": 1, "delta": 1}))[0] == 400
    assert (await api("POST", MANUAL, json={"delta": -2}))[0] == 400
    for provider in ([], {}, ["fake"], 0, None):
        status, answer, _ = await api("POST", MANUAL, json={"delta": 1, "provider": provider})
        assert (status, fields(answer)) == (400, {"provider"}), provider

    status, manual, _ = await api("POST", MANUAL, json={"delta": 2, "for_s": 600, "provider": "fake"})
    assert (status, manual["have"], manual["target"], manual["provider"]) == (202, 1, 3, "fake")
    document = await seen(
        api, lambda found: sum(pool["ready"] for pool in found["pools"]) == 3, "three nodes are ready"
    )
    assert document["manual"]["target"] == 3 and any("by hand" in note for note in document["notes"])
    assert (await api("DELETE", MANUAL))[1]["was"]["target"] == 3
    await scene.until(lambda: scene.machines.started == 0, "no target asks for the nodes any more")
    assert (await api("DELETE", MANUAL))[1] == {"was": None}


async def test_paid_nodes_are_on_the_bill_and_panic_ends_them_at_once(scene: Scene, api: Client) -> None:
    cloud = scene.machines.provider("cloud", paid=True, offers=(PAID,))
    await scene.settings(max_nodes=3, providers=["cloud"], budget_usd_h=5.0, budget_usd_day=100.0)
    await scene.submit(200)
    await scene.elect(has_key=True)
    await scene.until(lambda: len(cloud.running) == 2, "two nodes are rented")
    bill: dict[str, Any] = {}

    async def counted() -> bool:
        nonlocal bill
        status, bill, _ = await api("GET", COST)
        return status == 200 and len(bill["running"]) == 2 and bill["running_usd_h"] > 2.39

    await eventually(counted, 30, lambda: f"both nodes are on the bill; {bill}")
    assert bill["running_usd_h"] == pytest.approx(2.4) and bill["running_usd_minute"] == pytest.approx(0.04)
    assert bill["budget_usd_h"] == 5.0 and bill["room_usd_h"] == pytest.approx(2.6)
    assert bill["month_forecast_usd"] > bill["spent_month_usd"] >= bill["spent_today_usd"] >= 0
    assert {running["provider"] for running in bill["running"]} == {"cloud"}

    assert (await api("POST", f"{V}/autoscaler/panic", json={"on": 1, "z": 1}))[0] == 400
    assert (await api("POST", f"{V}/autoscaler/panic", json={"on": True}))[1] == {"panic": True}
    await scene.until(lambda: not cloud.running, "all paid nodes are ended")
    await scene.cycles(3)
    assert len(cloud.calls("launch")) == 2, "no paid node is started"
    document = (await api("GET", STATUS))[1]
    assert document["panic"] and (await api("GET", COST))[1]["panic"]
    assert (await api("POST", f"{V}/autoscaler/panic", json={"on": False}))[1] == {"panic": False}
    await scene.until(lambda: len(cloud.running) == 2, "the nodes are started again after the panic")


async def test_a_setting_alone_turns_nothing_on_and_the_budget_is_shown(scene: Scene, api: Client) -> None:
    """The status must not say "it was turned off", nor the bill "budget none set"."""
    assert (await api("PUT", POLICY, json={"settings": {"budget_usd_h": 2.5}}))[1]["by_hand"] == ["budget_usd_h"]
    document = (await api("GET", STATUS))[1]
    assert document["state"] == "off" and "nobody has turned scaling on" in document["reason"]
    bill = (await api("GET", COST))[1]
    assert (bill["budget_usd_h"], bill["room_usd_h"], bill["running_usd_h"]) == (2.5, 2.5, 0.0)
    assert (bill["at"], bill["spent_today_usd"], bill["month_forecast_usd"]) == (None, None, None), (
        "no leader has counted yet"
    )


async def test_while_scaling_is_off_running_nodes_are_shown_and_counted(scene: Scene, api: Client) -> None:
    cloud = scene.machines.provider("cloud", paid=True, offers=(PAID,))
    await scene.settings(max_nodes=3, providers=["cloud"], budget_usd_h=5.0)
    await scene.submit(200)
    await scene.elect(has_key=True)
    await scene.until(lambda: len(cloud.running) == 2, "two nodes are rented")
    assert (await api("PUT", POLICY, json={"enabled": False}))[0] == 200
    document = await seen(api, lambda found: sum(pool["ready"] for pool in found["pools"]) == 3, "three nodes are seen")
    assert (document["state"], len(document["orders"])) == ("off", 2) and "2 of the nodes" in document["reason"]
    spent = (await api("GET", COST))[1]
    assert len(spent["running"]) == 2 and spent["running_usd_h"] == pytest.approx(2.4) and spent["budget_usd_h"] == 5.0

    async def counted() -> bool:
        return (await api("GET", COST))[1]["spent_today_usd"] > spent["spent_today_usd"]

    await eventually(counted, 30, "the running nodes are counted")
    node = next(iter(cloud.running))
    cloud.running.pop(node)
    scene.machines.members.pop(node)
    await seen(api, lambda found: len(found["orders"]) == 1, "an ended machine is no longer shown")
    assert len(cloud.calls("launch")) == 2, "no node is started in its place"
