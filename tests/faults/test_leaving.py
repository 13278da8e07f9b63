"""SIGTERM: running tasks end here, tasks not started go elsewhere at once, and leadership is handed over at once."""

from __future__ import annotations

import pytest

from mesh.config import LOCAL
from mesh.leader import journal as events
from tests import invariants
from tests.faults.conftest import Field
from tests.faults.mixed import echoed
from tests.invariants import Expected

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


async def test_a_node_that_leaves_in_order(field: Field) -> None:
    """The leader leaves while it works, for longer than a silent node counts as alive: its tasks end, others go on,
    the next leader is elected at once."""
    mesh, witness = field.mesh, field.witness
    leaver = await field.cluster.node("--label", "x=1", slots=3).start()
    leader = await field.cluster.hand_over_from_host(mesh)
    assert leader is leaver
    accepted: dict[str, Expected] = {}
    long = []
    for number in range(2):
        handle = await mesh.start("echo", {"value": number, "sleep_s": 8.0}, requires={"labels": {"x": "1"}})
        accepted[handle.id] = echoed(number)
        long.append(handle.id)
    await witness.until(lambda: all(witness.runs(task) for task in long), 15, "the long tasks run")
    for number in range(200):
        handle = await mesh.start("echo", {"value": number, "sleep_s": 0.02})
        accepted[handle.id] = echoed(number)
    assert await leaver.terminate() == 0, leaver.log()
    await field.cluster.leader_other_than(mesh.bus, leaver)
    await invariants.check(mesh, accepted, witness)
    ends = {task: await mesh.end(task) for task in long}
    assert all(end.node == leaver.id and end.attempt == 1 for end in ends.values())
    assert all(len(witness.runs(task)) == 1 for task in long)

    journal = await invariants.journal(mesh.bus)
    lost = next(event for event in reversed(journal) if event.type == events.LEADER_LOST)
    elected = next(event for event in reversed(journal) if event.type == events.LEADER_ELECTED)
    assert (lost.node, elected.node) == (leaver.id, field.cluster.nodes[0].id)
    assert elected.at - lost.at < LOCAL.lease_ttl_s / 2, "handed over, not run out"
    assert not [event for event in journal if event.type == events.WORK_RETURNED]
