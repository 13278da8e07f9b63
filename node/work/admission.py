"""From a delivery to a running job: decode, look whether it may run here and now, fetch its blobs, hand it on.

A first delivery runs at once. Any other one (delivered before, sent twice, or held across a lost connection) first
reads the task's records: ended -> acknowledge; running on a node that lives -> give back; else run.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import time
from typing import TYPE_CHECKING

import msgspec

from mesh.errors import NotFound, QueztlError
from mesh.kinds.table import KINDS
from mesh.lanes import cores_for
from mesh.messages import TaskError, TaskState, decode_task
from mesh.tasks import records
from node.executor.executor import Executor, Job
from node.work.checkpoints import Checkpoints
from node.work.completion import Completion
from node.work.deliveries import Deliveries, Delivery
from node.work.outcome import Attempt, End, lost_too_often
from node.work.pull_plan import surplus
from node.work.puller import Load

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message

log = logging.getLogger(__name__)
#: A task that runs elsewhere is looked at again after this.
RUNNING_ELSEWHERE_DELAY_S = 2.0
#: A task that can't be looked at (the bus is away) is given back for this long.
TRY_LATER_S = 1.0
#: Work that has been running for so long is no short work, whatever its kind took before.
LONG_S = 0.25
#: What is given back because it would not begin soon comes to somebody after this.
SHED_DELAY_S = 0.05
#: After a stall, deliveries are doubted for this long: they may have waited in the socket.
DOUBT_S = 1.0


class Admission:
    """Runs what a node pulls."""

    def __init__(
        self,
        bus: Bus,
        *,
        node: str,
        incarnation: str,
        slots: int,
        spool: Path,
        deliveries: Deliveries,
        checkpoints: Checkpoints,
        is_alive: Callable[[str, str], bool],
        changed: Callable[[], None],
    ) -> None:
        self._bus, self._config = bus, bus.config
        self._node, self._incarnation, self._slots = node, incarnation, slots
        self._spool, self._deliveries, self._is_alive, self._changed = spool, deliveries, is_alive, changed
        self._checkpoints = checkpoints
        self._executor: Executor | None = None
        self._completion: Completion | None = None
        self._waiting: dict[str, int] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.alive_at = self._loop.time()
        """When this process was last known to be running, monotonic; the heartbeat keeps it fresh."""
        self._doubt_until = 0.0

    def wire(self, executor: Executor, completion: Completion) -> None:
        """Connect the parts that need each other."""
        self._executor, self._completion = executor, completion

    @property
    def executor(self) -> Executor:
        """Where jobs run."""
        assert self._executor is not None
        return self._executor

    @property
    def completion(self) -> Completion:
        """Where ends go."""
        assert self._completion is not None
        return self._completion

    def load(self) -> Load:
        """What the puller's plan needs to know."""
        means_s = self._means_s()
        unstarted = tuple((means_s.get(kind, 0.0), count) for kind, count in self._waiting.items() if count)
        return Load(self._slots, self.executor.free_cores, unstarted, means_s)

    def _means_s(self) -> dict[str, float]:
        """How long each kind takes: as measured, or as long as one of it has been running by now."""
        means_s = {kind: rate.mean_s for kind, rate in self.executor.rates.items() if rate.samples}
        now = self._loop.time()
        for delivery in self._deliveries.older_than(now - LONG_S):
            if delivery.started_at and (ran_s := now - delivery.started_at) > LONG_S:
                kind = delivery.task.kind
                means_s[kind] = max(means_s.get(kind, 0.0), ran_s)
        return means_s

    def shed(self) -> None:
        """Give back what was taken for short work and will not begin soon, the latest first: others may be idle."""
        if not self.unstarted:
            return
        for kind, count in surplus(self._waiting, self._means_s(), self._slots, self._config).items():
            taken = [one for one in self._deliveries if not one.started_at and one.task.kind == kind]
            for delivery in taken[max(0, len(taken) - count) :]:
                self._deliveries.give_back(delivery, SHED_DELAY_S)
                self.executor.cancel(delivery.task.id)

    @property
    def unstarted(self) -> int:
        """Taken from a lane and not started."""
        return sum(self._waiting.values())

    # --- taking -------------------------------------------------------------------------------------
    def on_message(self, message: Message, stream_seq: int, delivered: int) -> None:
        """One delivery from a lane."""
        now = self._loop.time()
        if now - self.alive_at > self._config.heartbeat_interval_s * 1.5 + self._config.stall_limit_s:
            self.stalled()
        try:
            task = decode_task(message.data)
        except msgspec.MsgspecError as error:
            # Published into a lane by something that is no Queztl client: end it, or it comes back for ever.
            log.warning("a message on %s is no task (%s); it is dropped", message.subject, error)
            self._bus.term(message.reply)
            return
        resent = b"Queztl-Resent" in message.raw_headers
        doubtful = now < self._doubt_until
        delivery = Delivery(task, message.reply, stream_seq, delivered, self._bus.epoch, now)
        delivery.suspect, delivery.trusted = resent or delivered > 1 or doubtful, not doubtful
        if not self._deliveries.take(delivery):
            return
        delivery.attempt = first_attempt(task.max_attempts or self._config.max_attempts)
        if delivery.suspect or task.blobs or task.payload_ref is not None:
            self._count_waiting(task.kind, 1)
            self._spawn(self._admit(delivery), f"admit {task.id}")
        else:
            self._count_waiting(task.kind, 1)
            self._run(delivery, {}, task.payload)

    async def _admit(self, delivery: Delivery) -> None:
        """The slow way in: look at the records, fetch blobs."""
        task = delivery.task
        handed_on = False
        try:
            if delivery.suspect and not await self._may_run(delivery):
                return
            folder = delivery.folder = self._spool / f"{task.id}.{delivery.delivered}"
            blobs: dict[str, Path] = {}
            payload: bytes | msgspec.Raw = task.payload
            if task.payload_ref is not None or task.blobs:
                folder.mkdir(parents=True, exist_ok=True)
                if task.payload_ref is not None:
                    chunks = await self._bus.objects.open(task.payload_ref.blob)
                    payload = b"".join([chunk async for chunk in chunks])
                for blob in task.blobs:
                    blobs[blob] = folder / blob
                    await self._bus.objects.fetch(blob, blobs[blob])
            resume = None
            if delivery.suspect and task.kind in KINDS and KINDS[task.kind].checkpoints:
                resume = await self._checkpoints.resume(delivery, folder)
            if not self._is_wanted(delivery):
                return
            handed_on = True
            self._run(delivery, blobs, payload, resume)
        except NotFound as missing:
            error = TaskError("blob_missing", str(missing), (("payload", "names a blob that is not there"),))
            self.completion.end(delivery, End("failed", error))
        except QueztlError as error:
            log.warning("could not prepare task %s, giving it back: %s", task.id, error)
            self._deliveries.give_back(delivery, TRY_LATER_S)
        finally:
            if not handed_on:
                _clear(delivery)
                self._count_waiting(task.kind, -1)
                self._changed()

    def _is_wanted(self, delivery: Delivery) -> bool:
        """Whether it is still this node's to run, after its records were read and its blobs fetched.

        Without this a node that gave back what it was still letting in would run all of it in vain.
        """
        if delivery.ended:
            self._deliveries.ack(delivery)
        elif delivery.withdrawn:
            self._deliveries.drop(delivery)
        return not (delivery.ended or delivery.withdrawn)

    async def _may_run(self, delivery: Delivery) -> bool:
        """Read what the mesh knows of a task that may have run before."""
        task = delivery.task
        end = await records.read_end(self._bus, task.id)
        if end is not None:
            self._deliveries.ack(delivery)
            return False
        state = await records.read_state(self._bus, task.id)
        if state is None:
            return True
        mine = state.node == self._node and state.incarnation == self._incarnation
        if state.state == "running" and not mine and self._is_alive(state.node, state.incarnation):
            self._deliveries.give_back(delivery, RUNNING_ELSEWHERE_DELAY_S)
            return False
        delivery.attempt = attempt_after(state, delivery.attempt, mine)
        over = lost_too_often(delivery.attempt)
        if over is not None:
            self.completion.end(delivery, over)
            return False
        return True

    def _run(
        self,
        delivery: Delivery,
        blobs: dict[str, Path],
        payload: bytes | msgspec.Raw,
        resume: Path | None = None,
    ) -> None:
        task = delivery.task
        if task.expires_at and time() > task.expires_at:
            self._count_waiting(task.kind, -1)
            error = TaskError("expired", "it was not started before its time was up")
            self.completion.end(delivery, End("expired", error))
            return
        spec = KINDS.get(task.kind)
        if spec is None:
            self._count_waiting(task.kind, -1)
            log.warning("lane of unknown kind %s; giving %s back", task.kind, task.id)
            self._deliveries.give_back(delivery, RUNNING_ELSEWHERE_DELAY_S)
            return
        job = Job(
            id=task.id,
            kind=task.kind,
            payload=bytes(payload),
            cores=cores_for(task.requires, spec.resources.cores, self._slots),
            timeout_s=task.timeout_s or spec.timeout_s,
            memory_mb=max(spec.resources.memory_mb, int(task.requires.get("memory_mb") or 0)),
            blobs=blobs,
            resume=resume,
            token=delivery,
        )
        self.executor.submit((job,))

    # --- what the executor tells ---------------------------------------------------------------------
    def on_started(self, job: Job) -> None:
        """A worker has it."""
        delivery: Delivery = job.token
        if not delivery.started_at:
            delivery.started_at, delivery.started_unix = self._loop.time(), time()
            self._deliveries.touch(delivery.started_at)
            self._count_waiting(job.kind, -1)

    def on_called_back(self, job: Job) -> None:
        """It waits for a worker again: behind a long one it was taken for short, and may be given back."""
        delivery: Delivery = job.token
        if delivery.started_at:
            delivery.started_at = delivery.started_unix = 0.0
            self._count_waiting(job.kind, 1)
            self.completion.revert_to_queued(delivery)

    def on_ended(self, job: Job) -> None:
        """It left the executor."""
        delivery: Delivery = job.token
        if not delivery.started_at:
            self._count_waiting(job.kind, -1)
        _clear(delivery)

    def stalled(self) -> None:
        """This process stood still: others may hold its deliveries by now, so what has not started is dropped.

        The server gives it to somebody again (to this node too) after `ack_wait` at the latest.
        """
        self.alive_at = self._loop.time()
        # What lay in this socket while the process stood still may be somebody else's already.
        self._doubt_until = self.alive_at + DOUBT_S
        self._deliveries.distrust()
        for delivery in self._deliveries:
            if not delivery.started_at:
                delivery.withdrawn = True
                self.executor.cancel(delivery.task.id)

    def cancel(self, task: str) -> None:
        """Somebody ended the task: free its worker, or have it not begin."""
        delivery = self._deliveries.of_task(task)
        if delivery is not None and not self.executor.cancel(task):
            delivery.ended = True

    def _count_waiting(self, kind: str, change: int) -> None:
        self._waiting[kind] = max(0, self._waiting.get(kind, 0) + change)

    def _spawn(self, coroutine: object, name: str) -> None:
        task = self._loop.create_task(coroutine, name=name)  # type: ignore[arg-type]
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _clear(delivery: Delivery) -> None:
    if delivery.folder is not None:
        shutil.rmtree(delivery.folder, ignore_errors=True)


@cache
def first_attempt(max_attempts: int) -> Attempt:
    """A task's first attempt: one shared value, for it is made for every task."""
    return Attempt(1, max_attempts)


def attempt_after(state: TaskState, now: Attempt, mine: bool) -> Attempt:
    """The attempt a task is on, given the `.state` left behind: a node that died is no attempt, but counted."""
    lost = state.lost + (1 if state.state == "running" and not mine else 0)
    return Attempt(max(1, state.attempt), now.max_attempts, tuple(state.crashed_on), lost)
