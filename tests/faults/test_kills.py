"""kill -9, SIGSTOP and a dead bus under 500 mixed tasks: each ends once with the right result; no leftovers."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests import invariants
from tests.faults.conftest import Field
from tests.faults.mixed import echoed
from tests.faults.scene import (
    ACK_WAIT_S,
    AFTER_A_FREEZE_S,
    AFTER_A_KILL_S,
    AFTER_THE_LEADER_S,
    BIG,
    check,
    reclaimed,
    set_up,
    start_victim,
    started_elsewhere,
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


async def test_kill_of_the_node_that_runs_most(field: Field) -> None:
    """The bus reports its closed connection, and its announced work starts on another node at once."""
    victim = await start_victim(field)
    scene = await set_up(field, victim)
    at = await victim.kill9()
    await started_elsewhere(field, scene, at, AFTER_A_KILL_S)
    await check(field, scene, at, "the kill")
    await reclaimed(field, victim, "its connection closed")


async def test_freeze_and_waking_after_20_s(field: Field) -> None:
    """The work of a frozen node starts on another; when it wakes, nothing ends twice, and it works again."""
    victim = await start_victim(field)
    scene = await set_up(field, victim)
    at = victim.freeze()
    await started_elsewhere(field, scene, at, AFTER_A_FREEZE_S)
    await check(field, scene, at, "the freeze")
    await reclaimed(field, victim, "no heartbeat came")
    await asyncio.sleep(max(0.0, at + 20 - time.time()))  # frozen for 20 s by intent
    victim.thaw()
    back = await field.mesh.submit("echo", {"value": "back"}, requires={"node": victim.id}, wait_s=20)
    assert back == {"value": "back"}
    handle_ids = set(field.witness.ends) - set(scene.accepted)
    await invariants.check(field.mesh, scene.accepted | dict.fromkeys(handle_ids, echoed("back")), field.witness)


async def test_kill_of_the_leaders_node(field: Field) -> None:
    """At first no leader can reclaim its work: another node becomes leader, and reclaims it."""
    victim = await start_victim(field)
    leader = await field.cluster.hand_over_from_host(field.mesh)
    assert leader is victim
    scene = await set_up(field, victim)
    at = await victim.kill9()
    await started_elsewhere(field, scene, at, AFTER_THE_LEADER_S)
    await check(field, scene, at, "the kill")
    await reclaimed(field, victim)


async def test_kill_of_the_bus_server(field: Field) -> None:
    """Its node starts it again; every node reconnects, nothing accepted is lost, nothing ends twice."""
    victim = await start_victim(field)
    scene = await set_up(field, victim)
    server = field.cluster.nodes[0].bus_process()
    assert server is not None
    at = time.time()
    server.kill()
    await check(field, scene, at, "the kill of the bus server")
    again = field.cluster.nodes[0].bus_process()
    assert again is not None and again.pid != server.pid


async def test_work_nobody_announced_starts_elsewhere_within_ack_wait(field: Field) -> None:
    """Deliveries that a node had received just before it was killed are repeated by the bus."""
    mesh, witness = field.mesh, field.witness
    victim, other = [field.cluster.node("--label", "big=1", slots=2) for _ in range(2)]
    await victim.start()
    accepted = await echoes(field, 0, 3800)
    await witness.until(lambda: len(witness.ends) == len(accepted), 60, "it works through them")
    # It pulls more now. It can't announce what the bus delivers while it is frozen.
    at = victim.freeze()
    accepted |= await echoes(field, 3800, 4000)
    await victim.kill9()
    await other.start()
    await invariants.check(mesh, accepted, witness)
    ends = [await mesh.end(task) for task in accepted]
    late_s = sorted(end.started_at - at for end in ends if end.node == other.id)[-1:]
    print(f"the last of what came back by itself started after {late_s} s")
    assert late_s and 0.9 * ACK_WAIT_S < late_s[0] < 2 * ACK_WAIT_S, "at the first deadline, not at a second"


async def echoes(field: Field, first: int, last: int) -> dict[str, invariants.Expected]:
    """Short tasks [first, last) for a node of label `big`."""
    accepted = {}
    for number in range(first, last):
        handle = await field.mesh.start("echo", {"value": number, "sleep_s": 0.001}, requires=BIG)
        accepted[handle.id] = echoed(number)
    return accepted
