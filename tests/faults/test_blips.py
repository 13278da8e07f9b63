"""Connections cut for a moment, late and repeated acknowledgements: no task ends twice or is lost."""

from __future__ import annotations

from typing import Any

import pytest

from mesh.leader import journal as events
from tests import invariants
from tests.faults.conftest import Field
from tests.faults.mixed import echoed
from tests.invariants import Expected
from tests.proxy import Proxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

WIRED = {"labels": {"wired": "1"}}


async def echoes(field: Field, count: int, sleep_s: float, **options: Any) -> dict[str, Expected]:
    """`count` accepted tasks."""
    accepted = {}
    for number in range(count):
        handle = await field.mesh.start("echo", {"value": number, "sleep_s": sleep_s}, **options)
        accepted[handle.id] = echoed(number)
    return accepted


async def test_a_connection_cut_and_back_at_once(field: Field) -> None:
    """Tasks that ran through the cuts run once, and no node counts as gone."""
    proxy, witness = Proxy(field.cluster.bus_port), field.witness
    port = await proxy.start()
    try:
        wired = field.cluster.node("--label", "wired=1", "--join", f"nats://127.0.0.1:{port}", slots=4)
        await wired.start()
        long = await echoes(field, 3, 4.0, requires=WIRED, urgency="high")
        accepted = dict(long)
        await witness.until(lambda: all(witness.runs(task) for task in long), 15, "the long tasks run")
        for blip in range(3):
            short = await echoes(field, 30, 0.005, requires=WIRED)
            accepted |= short
            await witness.until(lambda short=short: any(map(witness.ends.get, short)), 20, "work is under way")
            proxy.cut()
            await witness.until(lambda short=short: all(map(witness.ends.get, short)), 20, f"over blip {blip}")
        await invariants.check(field.mesh, accepted, witness)
        assert all(len(witness.runs(task)) == 1 for task in long), [witness.runs(task) for task in long]
        journal = await invariants.journal(field.mesh.bus)
        assert not [event for event in journal if event.type in (events.WORK_RETURNED, events.NODE_GONE)]
    finally:
        await proxy.close()


async def test_late_and_repeated_acknowledgements(field: Field) -> None:
    """An old `+ACK`, `-NAK` or `+WPI`, sent again during a run and after the end, changes no outcome."""
    bus, witness = field.mesh.bus, field.witness
    await field.cluster.node(slots=2).start()
    acks_seen: dict[str, bytes] = {}
    spy = await bus.subscribe("$JS.ACK.WORK.>", lambda message: acks_seen.setdefault(message.subject, message.data))
    accepted = await echoes(field, 40, 0.01)
    await invariants.check(field.mesh, accepted, witness)
    await bus.flush()
    acks = [subject for subject, data in acks_seen.items() if data == b"+ACK"]
    assert len(acks) >= len(accepted)
    for subject in acks:
        for acknowledgement in (b"+ACK", b"-NAK", b"+WPI", b"+ACK"):
            bus.send(subject, acknowledgement)
    await bus.flush()
    await invariants.check(field.mesh, accepted, witness)

    # During a run: after a stray -NAK, the bus delivers the task again while its holder still runs it.
    acks_seen.clear()
    running = await echoes(field, 3, 6.0)
    await witness.until(lambda: all(witness.runs(task) for task in running), 15, "they run")
    await witness.until(lambda: acks_seen or any(witness.ends[task] for task in running), 10, "one is renewed")
    renewed = [subject for subject, data in acks_seen.items() if data == b"+WPI"]
    for subject in renewed:
        bus.send(subject, b"-NAK")
    await invariants.check(field.mesh, accepted | running, witness)
    assert renewed and all(len(witness.runs(task)) == 1 for task in running)
    await spy.close()
