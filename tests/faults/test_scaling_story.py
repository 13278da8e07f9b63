"""Capacity follows demand, with real processes: 1,000 tasks, the scaler starts nodes, and gives them up again."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.capacity import TOKEN_LABEL
from mesh.client import Mesh
from mesh.messages import TaskEnd
from scaling.log.decision_record import replay
from scaling.state import settings as policy
from scaling.state.store import Store
from tests import invariants
from tests.faults.mixed import echoed
from tests.invariants import Expected, Witness
from tests.nodes import Cluster, eventually, records
from tests.scaled import kill_started, started

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

#: Short windows, so that scale-in is part of the test; realistic limits.
SETTINGS: dict[str, Any] = {
    "max_nodes": 4, "baseline_nodes": 2, "backlog_target_s": 2.0, "decide_every_s": 0.5, "down_window_s": 4.0,
    "min_life_s": 0.0, "load_window_s": 5.0, "settle_s": 20.0,
}  # fmt: skip
#: Bounds for a busy machine; the steps are asserted, not how long they took.
STARTED_WITHIN_S, BACK_WITHIN_S, GONE_WITHIN_S = 120.0, 120.0, 60.0


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path) as made:
        try:
            yield made
            made.print_logs()
        finally:
            kill_started(tmp_path)


async def set_policy(store: Store, **settings: Any) -> None:
    before = await store.policy()
    after = policy.changed(before or policy.Policy(), settings, True, policy.BY_HAND, "test", time.time())
    await store.put_policy(before, after)


async def submit(mesh: Mesh, count: int, sleep_s: float) -> dict[str, Expected]:
    accepted: dict[str, Expected] = {}
    for number in range(count):
        handle = await mesh.start("echo", {"value": number, "sleep_s": sleep_s})
        accepted[handle.id] = echoed(number)
    return accepted


async def up(mesh: Mesh) -> set[str]:
    """Ids of nodes whose record is up."""
    return {node for node, record in (await records(mesh.bus)).items() if record.state == "up"}


async def test_capacity_follows_demand_up_and_back(cluster: Cluster, tmp_path: Path) -> None:
    """Scale-out to the limit, the queue drains, scale-in to the baseline; every decision has a reason."""
    person = await cluster.node(slots=1).start()
    mesh = await cluster.client()
    witness, store = await Witness(mesh.bus).start(), Store(mesh.bus)
    await set_policy(store, **SETTINGS)
    accepted = await submit(mesh, 1000, 0.03)

    async def four() -> bool:
        return len(await up(mesh)) == 4

    await eventually(four, STARTED_WITHIN_S, "four nodes are up")
    await witness.until(lambda: len(witness.ends) == len(accepted), BACK_WITHIN_S, "all tasks end")
    ends: list[TaskEnd | None] = [await mesh.end(task) for task in accepted]
    by_node = {end.node for end in ends if end is not None}
    assert len(by_node) == 4 and person.id in by_node, "every node did some of the work"

    async def back() -> bool:
        return len(started(tmp_path)) == 1 and len(await store.intents()) == 1

    await eventually(back, BACK_WITHIN_S, lambda: f"back at the baseline; {sorted(started(tmp_path))} are left")
    assert await up(mesh) > {person.id}
    await invariants.check(mesh, accepted, witness)
    assert all(end is not None and end.attempt == 1 for end in ends), "no task was cut off by scale-in"

    decisions = await store.decisions(200)
    for decision in decisions:
        made, same = replay(decision)
        assert same and all(pool.trail for pool in made.pools)
    targets = [decision["pools"][0]["target"] for decision in reversed(decisions)]
    assert max(targets) == 4 and targets[-1] == 2, targets
    journal = [event for event in await invariants.journal(mesh.bus) if event.type.startswith("scaling.")]
    events = [event.type.removeprefix("scaling.") for event in journal]
    assert [events.count(what) for what in ("intended", "launched", "joined", "draining", "ended")] == [3, 3, 3, 2, 2]
    # The end of the mesh ends the nodes that were started for it.
    assert await person.terminate() == 0, person.log()

    async def none() -> bool:
        return not started(tmp_path)

    await eventually(none, GONE_WITHIN_S, "the node that was left goes with its mesh")


async def test_the_next_leader_finds_what_was_started_and_gives_it_up(cluster: Cluster, tmp_path: Path) -> None:
    """The leader is killed while its nodes work: they go on, none is started twice, and scale-in still happens."""
    host = await cluster.node(slots=1).start()
    other = await cluster.node(slots=1).start()
    mesh = await cluster.client()
    witness, store = await Witness(mesh.bus).start(), Store(mesh.bus)
    # The host runs the bus, and its death is another test. So the leader must be the other node.
    leader = await cluster.hand_over_from_host(mesh)
    assert leader is other
    await set_policy(store, **SETTINGS | {"baseline_nodes": 0})
    accepted = await submit(mesh, 600, 0.03)

    async def both() -> bool:
        node_records = await records(mesh.bus)
        return sum(TOKEN_LABEL in record.labels and record.state == "up" for record in node_records.values()) == 2

    await eventually(both, STARTED_WITHIN_S, "two nodes are started")
    tokens = set(started(tmp_path))
    await other.kill9()
    assert set(started(tmp_path)) == tokens, "they outlive who started them"
    await witness.until(lambda: len(witness.ends) == len(accepted), BACK_WITHIN_S, "all tasks end")

    async def back() -> bool:
        return not started(tmp_path) and not await store.intents()

    await eventually(back, BACK_WITHIN_S, lambda: f"{sorted(started(tmp_path))} are left")
    assert host.running
    await invariants.check(mesh, accepted, witness)
    journal = [event for event in await invariants.journal(mesh.bus) if event.type.startswith("scaling.")]
    assert {event.fence for event in journal if event.type == "scaling.ended"}.isdisjoint(
        event.fence for event in journal if event.type == "scaling.intended" and event.detail["token"] in tokens
    )
