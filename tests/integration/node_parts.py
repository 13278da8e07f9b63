"""The parts of a node between a lane and its workers, on a real bus, with a spy on its acknowledgements."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any

from mesh import subjects
from mesh.bus.client import Bus
from mesh.bus.wire import Message
from mesh.messages import Task, TaskError, TaskState, encode
from node.executor.jobs import Finished, Job
from node.work.admission import Admission
from node.work.checkpoints import Checkpoints
from node.work.completion import Completion
from node.work.deliveries import Deliveries, Delivery

ACK, RENEW = b"+ACK", b"+WPI"


def nak(delay_s: float) -> bytes:
    """A NAK with a delay: without one, the message is redelivered at once, and to the same node."""
    return b"-NAK " + json.dumps({"delay": int(delay_s * 1e9)}).encode()


class Spy:
    """Records the acknowledgements of deliveries, from another connection."""

    def __init__(self, bus: Bus, node: Bus) -> None:
        self._bus, self._node = bus, node
        self._all: list[tuple[str, bytes]] = []
        self._news = asyncio.Event()

    async def start(self) -> Spy:
        await self._bus.subscribe("acks.>", self._on_message)
        return self

    def _on_message(self, message: Message) -> None:
        self._all.append((message.subject, message.data))
        self._news.set()

    async def acks(self, count: int = 0) -> list[tuple[str, bytes]]:
        """All acknowledgements sent until now, or the next ones as soon as there are `count`."""
        if not count:
            self._node.send("acks.now", b"")  # arrives after all that was sent before
        async with asyncio.timeout(10):
            while len(self._all) < count if count else ("acks.now", b"") not in self._all:
                self._news.clear()
                await self._news.wait()
        found = [sent_message for sent_message in self._all if sent_message[0] != "acks.now"]
        self._all.clear()
        return found


class RecordingExecutor:
    """Takes the place of the executor, and keeps the jobs."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.cancelled: list[str] = []
        self.rates: dict[str, Any] = {}
        self.free_cores = 4

    def submit(self, jobs: tuple[Job, ...]) -> None:
        self.jobs += jobs

    def cancel(self, token: Delivery) -> bool:
        self.cancelled.append(token.task.id)
        return any(job.token is token for job in self.jobs)


@dataclass
class Node:
    """The parts between a lane and the workers, on a real bus."""

    bus: Bus
    deliveries: Deliveries
    admission: Admission
    completion: Completion
    workers: RecordingExecutor
    spy: Spy
    checkpoints: Checkpoints

    def get(self, seq: int, delivered: int = 1, data: bytes = b"", stored_ago_s: float = 0.0, **fields: Any) -> str:
        """Deliver a message stored `stored_ago_s` seconds ago; returns its ack subject, which has that time."""
        stored_at = int((time() - stored_ago_s) * 1e9)
        reply = f"acks.{seq}.{delivered}" if not stored_ago_s else f"acks.x.x.x.{delivered}.{seq}.{seq}.{stored_at}.0"
        task = fields.get("id", f"c1-{seq}")
        data = data or encode(Task(**{"id": task, "kind": "echo", "submitted_at": 1.0} | fields))
        lane = (fields.get("kind", "echo"), fields.get("pool", "any"), fields.get("urgency", "normal"))
        self.admission.on_message(Message(subjects.lane_subject(*lane, task), reply, data), seq, delivered)
        return reply

    async def ran(self) -> list[str]:
        """The admitted tasks, after all pending admissions are decided."""
        await asyncio.gather(*self.admission._background)
        return [job.id for job in self.workers.jobs]

    def held(self, seq: int) -> Delivery:
        found = self.deliveries.get(seq)
        assert found is not None
        return found


async def make_node(bus_server: Any, spool: Path) -> Node:
    """Node `me`, incarnation 1; the only other living node is ("alive", "1")."""
    bus = await bus_server.connect("me/1")
    deliveries, workers = Deliveries(bus, "me", "1"), RecordingExecutor()
    checkpoints = Checkpoints(bus, "me", deliveries)
    admission = Admission(
        bus, node="me", incarnation="1", slots=4, spool=spool, deliveries=deliveries, checkpoints=checkpoints,
        is_alive=lambda node, incarnation: node in ("alive", "me") and incarnation == "1", changed=lambda: None,
    )  # fmt: skip
    completion = Completion(
        bus, node="me", incarnation="1", deliveries=deliveries, checkpoints=checkpoints,
        on_ended=lambda job: None, changed=lambda: None,
    )  # fmt: skip
    admission.wire(workers, completion)
    spy = await Spy(await bus_server.connect("spy"), bus).start()
    return Node(bus, deliveries, admission, completion, workers, spy, checkpoints)


async def put_state(bus: Bus, seq: int, **fields: Any) -> None:
    state = TaskState(id=f"c1-{seq}", kind="echo", **fields)
    await bus.store(subjects.state(state.id), encode(state))


def done(node: Node, seq: int, error: TaskError | None = None) -> None:
    """Let a worker end that task."""
    job = next(job for job in node.workers.jobs if job.id == f"c1-{seq}")
    node.completion.on_finished([Finished(job, b"\xc0", error=error)])
