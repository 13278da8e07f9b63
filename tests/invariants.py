"""Invariants that must hold after every fault test, whatever was killed, frozen or cut off.

Every accepted task has exactly one final record; no result lacks an accepted task; a second result changes nothing;
fencing numbers never decrease; no message is left in a lane, scheduled or held by a dead node; results are correct.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import msgspec

from mesh import subjects
from mesh.bus import streams
from mesh.bus.client import Bus, Message, Subscription
from mesh.bus.errors import MESSAGE_NOT_FOUND, ApiError
from mesh.client import Mesh
from mesh.coordination import MeshEvent, Plan
from mesh.errors import BusUnavailable, WaitTimeout
from mesh.leader import journal as events
from mesh.messages import TaskEnd, TaskState
from mesh.tasks import records

#: Gets the end record and, when the task is done, its value; raises AssertionError when either is wrong.
Expected = Callable[[TaskEnd, Any], None]

#: An end is stored before its message is acknowledged, and the leader checks the lanes every two seconds.
SETTLE_S = 20.0
#: The witness's consumer survives a connection loss of this length.
_KEPT_NS = 600 * 10**9
#: The number of tasks for which the check tries to write a second end.
SECOND_ENDS = 25


class Witness:
    """Records every task state, end and plan that the bus stores, from the moment it is started."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._subscriptions = bus, list[Subscription]()
        self.ends: Counter[str] = Counter()
        """Task -> how many different ends were received. The same end may arrive twice: from a Raft leader that froze,
        once it thaws, and from its successor."""
        self._heard: set[bytes] = set()
        self.states: list[tuple[float, TaskState]] = []
        self.plan_fences: list[int] = []
        self._news = asyncio.Event()

    async def start(self) -> Witness:
        """Subscribe."""
        self._subscriptions = [
            await self._bus.subscribe("task_updates.>", self._on_task_update),
            await self._bus.subscribe(box := self._bus.new_inbox(), self._on_plan),
        ]
        # Read stored plans, not published ones: a leader that was cut off publishes its old plans when the cable is
        # back, and the bus refuses them.
        plans = {"deliver_subject": box, "deliver_policy": "last", "ack_policy": "none", "inactive_threshold": _KEPT_NS}
        stream = f"KV_{subjects.KV_PLAN}"
        await self._bus.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": plans}, repeat=False)
        return self

    def _on_task_update(self, message: Message) -> None:
        if not message.data:
            return
        if message.subject.endswith(".end"):
            if message.data in self._heard:
                return
            self._heard.add(message.data)
            self.ends[msgspec.msgpack.decode(message.data, type=TaskEnd).id] += 1
        else:
            self.states.append((time.time(), msgspec.msgpack.decode(message.data, type=TaskState)))
        self._news.set()

    def _on_plan(self, message: Message) -> None:
        if message.data:
            self.plan_fences.append(msgspec.msgpack.decode(message.data, type=Plan).fence)

    def runs(self, task: str) -> list[TaskState]:
        """The first `running` state of each run of a task, in order."""
        found: dict[tuple[str, str, float], TaskState] = {}
        for _, state in self.states:
            if state.id == task and state.state == "running":
                found.setdefault((state.node, state.incarnation, state.started_at), state)
        return list(found.values())

    async def until(self, condition: Callable[[], object], within_s: float, why: str) -> None:
        """Wait for the message that makes `condition` true. Raises: AssertionError."""
        try:
            async with asyncio.timeout(within_s):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {within_s:g} s: {why}") from None


async def check(mesh: Mesh, accepted: Mapping[str, Expected], witness: Witness, within_s: float = 60.0) -> None:
    """Check all invariants once every accepted task has ended (within `within_s`). Raises: AssertionError."""
    await _all_ended(mesh, accepted, witness, within_s)
    deadline = time.monotonic() + SETTLE_S
    while True:
        try:
            return await _hold(mesh, accepted, witness)
        except BusUnavailable:
            # A server that was cut off starts an election when it is back: repeat the reads that failed meanwhile.
            if time.monotonic() > deadline:
                raise


async def _hold(mesh: Mesh, accepted: Mapping[str, Expected], witness: Witness) -> None:
    bus = mesh.bus
    await _nothing_left(bus)
    ends = await records.read_ends(bus, accepted)
    for task in set(accepted) - set(ends):
        # Batch reads go to any replica, which may lag behind; a single read goes to the Raft leader.
        if (end := await records.read_end(bus, task)) is not None:
            ends[task] = end
    assert set(ends) == set(accepted), f"lost: {sorted(set(accepted) - set(ends))[:5]}"
    stored = await _stored_ends(bus)
    assert all(count == 1 for count in stored.values()), "a task has more than one final record"
    strangers = set(stored) - set(accepted)
    assert not strangers, f"results without an accepted task: {sorted(strangers)[:5]}"
    twice = {task: count for task, count in witness.ends.items() if count > 1}
    assert not twice, f"ended more than once: {twice}"
    for task, expected in accepted.items():
        end = ends[task]
        expected(end, await mesh.value(end) if end.state == "done" else None)
    await _second_ends_change_nothing(bus, list(accepted)[:SECOND_ENDS], ends)
    await fences_never_go_down(bus, witness)


async def _all_ended(mesh: Mesh, accepted: Iterable[str], witness: Witness, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    for task in accepted:
        try:
            await mesh.wait(task, max(0.1, deadline - time.monotonic()))
        except WaitTimeout:
            updates = [(at, state.node, state.state) for at, state in witness.states if state.id == task]
            view = await mesh.status(task)
            raise AssertionError(f"not ended within {within_s:g} s: {view}; its updates: {updates}") from None


async def _nothing_left(bus: Bus) -> None:
    """No message is left in WORK or LATER, and every delivery is acknowledged: a dead node holds nothing."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        left = {name: await _count(bus, name) for name in (subjects.WORK, subjects.LATER)}
        lanes = await streams.list_lanes(bus)
        held = {lane: info.unacknowledged for lane, info in lanes.items() if info.unacknowledged}
        if not any(left.values()) and not held:
            return
        assert time.monotonic() < deadline, f"messages left: {left}, deliveries not acknowledged: {held}"
        await asyncio.sleep(0.1)


async def _count(bus: Bus, stream: str) -> int:
    return int((await bus.api(f"STREAM.INFO.{stream}"))["state"]["messages"])


async def _stored_ends(bus: Bus) -> dict[str, int]:
    """Task -> how many `.end` messages the stream holds for it."""
    found: dict[str, int] = {}
    while True:
        request = {"subjects_filter": "task.*.*.end", "offset": len(found)}
        answer = await bus.api(f"STREAM.INFO.{subjects.TASKS}", request)
        page = (answer["state"].get("subjects") or {}).items()
        for subject, count in page:
            _, submitter, number, _ = subject.split(".")
            found[f"{submitter}-{number}"] = int(count)
        if not page or len(found) >= int(answer.get("total", 0)):
            return found


async def _second_ends_change_nothing(bus: Bus, tasks: list[str], ends: Mapping[str, TaskEnd]) -> None:
    for task in tasks:
        forged = msgspec.structs.replace(ends[task], state="failed", node="forger", ended_at=time.time())
        assert not await records.write_end(bus, forged), f"a second end of {task} was stored"
    again = {task: await records.read_end(bus, task) for task in tasks}
    assert all(again[task] == ends[task] for task in tasks), "a second end changed a first one"


async def journal(bus: Bus) -> list[MeshEvent]:
    """Every event of the mesh, in the order in which the bus stored them."""
    state = (await bus.api(f"STREAM.INFO.{subjects.EVENTS}"))["state"]
    found = []
    for sequence in range(int(state["first_seq"]), int(state["last_seq"]) + 1):
        try:
            answer = await bus.api(f"STREAM.MSG.GET.{subjects.EVENTS}", {"seq": sequence})
        except ApiError as error:
            if error.error_code != MESSAGE_NOT_FOUND:
                raise
            continue
        found.append(msgspec.msgpack.decode(base64.b64decode(answer["message"]["data"]), type=MeshEvent))
    return found


async def fences_never_go_down(bus: Bus, witness: Witness) -> None:
    """Terms strictly increase, and no leader writes after a later term began."""
    written = await journal(bus)
    elected = [event.fence for event in written if event.type == events.LEADER_ELECTED]
    assert elected and all(a < b for a, b in pairwise(elected)), f"terms: {elected}"
    # A leader that was cut off reports the end of its term late: that event describes the past and is not an act. Its
    # earlier writes may wait in a socket until the cable is back, so events are sorted by their own time (all nodes
    # share one clock here), not by when the bus stored them.
    acts = sorted(
        (event.at, event.fence, event.type) for event in written if event.fence and event.type != events.LEADER_LOST
    )
    fences = [fence for _, fence, _ in acts]
    assert fences == sorted(fences), f"a leader acted after its term: {acts}"
    assert witness.plan_fences == sorted(witness.plan_fences), f"plans: {witness.plan_fences}"
