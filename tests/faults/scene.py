"""The scene of the kill tests: a host, a victim that runs most of 500 mixed tasks, a rescuer, and a clock.

Long tasks run on the victim only until the rescuer comes, which alone can take them over and does nothing else: how
soon it does is measured.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from mesh.messages import TaskState
from tests import invariants
from tests.faults.conftest import Field
from tests.faults.mixed import echoed, mixed, submit_all
from tests.invariants import Expected
from tests.nodes import NodeProcess

TASKS, LONG, LONG_S = 500, 3, 9.0
#: Deadlines of the design: from the fault to the start elsewhere, seconds.
AFTER_A_KILL_S, AFTER_A_FREEZE_S, AFTER_THE_MASTER_S, ACK_WAIT_S = 0.5, 4.0, 4.0, 15.0
#: What comes back by itself is asked for by a pull that stands, or two seconds later at most.
PULL_S = 2.5
#: Mining takes all cores of a node unless told otherwise, and nothing would run beside it.
MIX, BIG = {"labels": {"mix": "1"}, "cores": 1}, {"labels": {"big": "1"}}


@dataclass
class Scene:
    """Everything under way, just before the fault."""

    victim: NodeProcess
    rescuer: NodeProcess
    accepted: dict[str, Expected]
    long: list[str]


async def set_up(field: Field, victim: NodeProcess) -> Scene:
    """The long tasks run on `victim` and are announced; the mixed ones are accepted and under way."""
    mesh, witness, work = field.mesh, field.witness, mixed(TASKS)
    accepted: dict[str, Expected] = {}
    for number in range(LONG):
        handle = await mesh.start("echo", {"value": number, "sleep_s": LONG_S}, requires=BIG, urgency="high")
        accepted[handle.id] = echoed(number)
    long = list(accepted)
    await witness.until(lambda: all(witness.runs(task) for task in long), 15, "the long tasks run")
    assert {run.node for task in long for run in witness.runs(task)} == {victim.id}
    starting = asyncio.create_task(field.cluster.node("--label", "big=1", slots=LONG + 1).start())
    accepted |= await submit_all(mesh, work, requires=MIX)
    rescuer = await starting
    accepted |= await warm_up(field, rescuer)
    await witness.until(lambda: sum(witness.ends.values()) > TASKS / 10, 20, "a tenth of the work is done")
    assert not any(witness.ends[task] for task in long), "this machine is too slow: the long tasks are over"
    return Scene(victim, rescuer, accepted, long)


async def warm_up(field: Field, rescuer: NodeProcess) -> dict[str, Expected]:
    """Have it run as many tasks side by side as it will have to take over, and return them.

    A node that worked before has its workers: how long a process takes to start is not asked here.
    """
    accepted: dict[str, Expected] = {}
    for _ in range(5):
        tasks = [
            await field.mesh.start("echo", {"value": number, "sleep_s": 0.3}, requires={"node": rescuer.id})
            for number in range(LONG)
        ]
        accepted |= {task.id: echoed(number) for number, task in enumerate(tasks)}
        ends = [await task.end(20) for task in tasks]
        if max(end.started_at for end in ends) < min(end.ended_at for end in ends):
            return accepted
    raise AssertionError(f"{rescuer.name} does not run {LONG} tasks side by side")


async def started_elsewhere(field: Field, scene: Scene, at: float, within_s: float) -> float:
    """Seconds from `at` until the last of the long tasks has started on the rescuer."""

    def rescued(task: str) -> TaskState | None:
        return next((run for run in field.witness.runs(task) if run.node == scene.rescuer.id), None)

    await field.witness.until(lambda: all(map(rescued, scene.long)), within_s, "the long tasks start elsewhere")
    delays_s = [run.started_at - at for task in scene.long if (run := rescued(task))]
    print(f"started elsewhere after {min(delays_s):.3f} to {max(delays_s):.3f} s")
    return max(delays_s)


def victim_of(field: Field) -> NodeProcess:
    """The node with most of the slots, not started yet."""
    return field.cluster.node("--label", "mix=1", "--label", "big=1", slots=LONG + 8)


async def start_victim(field: Field) -> NodeProcess:
    """The node with most of the slots."""
    return await victim_of(field).start()


async def check(field: Field, scene: Scene, at: float, what: str) -> None:
    """All invariants, and what there is to say about how long it took since `at`."""
    await invariants.check(field.mesh, scene.accepted, field.witness)
    ends = [await field.mesh.end(task) for task in scene.long]
    assert all(end.attempt == 1 for end in ends), "a node that died under a task is no attempt"
    print(f"{len(scene.accepted)} tasks ended once each, the last {time.time() - at:.1f} s after {what}")
