"""From a delivery to a running job: decode the task, check whether it may run here, fetch its blobs, submit it.

A first delivery runs at once. For any other one (delivered before, published twice, or held across a lost connection)
the node first reads the task's records: if it has ended, acknowledge; if it runs on a live node, return it; else run.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Coroutine
from pathlib import Path
from time import time
from typing import Any

import msgspec

from mesh import decoding, subjects
from mesh.bus.client import Bus, Message
from mesh.bus.publisher import RESENT_HEADER
from mesh.bus.replies import stored_at_of_ack
from mesh.bus.stream_clock import has_expired
from mesh.decoding import Unreadable
from mesh.errors import NotFound, QueztlError
from mesh.kinds.table import KINDS
from mesh.messages import TaskError
from mesh.tasks import dead_letters, records
from node.executor.executor import Executor
from node.executor.jobs import Job
from node.work.checkpoints import Checkpoints
from node.work.completion import Completion
from node.work.deliveries import Deliveries, Delivery
from node.work.load import NodeLoad
from node.work.outcome import End, attempt_after, first_attempt, lost_too_often
from node.work.pull_plan import Load, surplus

log = logging.getLogger(__name__)
#: A task that runs on another node is delivered again after this, seconds.
RUNNING_ELSEWHERE_DELAY_S = 2.0
#: A task that can't be prepared (the bus does not answer) is delivered again after this, seconds.
PREPARE_AGAIN_S = 1.0
#: A task whose requirements this node does not meet is delivered again after this, doubled each time, seconds. Longer
#: than a pull request lasts: those of this node must have expired.
MISPLACED_DELAY_S = 2.5
#: A task that is returned because it would not start soon is delivered again after this, seconds.
SHED_DELAY_S = 0.05
#: For this long after a stall new deliveries are suspect, seconds: they may have waited in the socket.
DOUBT_S = 1.0


_RESENT = RESENT_HEADER.encode()


class Admission:
    """Admits the deliveries that a node pulls."""

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
        lacks: Callable[[dict[str, Any]], bool] = lambda requires: False,
        others_start: Callable[[str, dict[str, Any]], bool] = lambda kind, requires: False,
    ) -> None:
        """`lacks(requires)`: whether this node does not meet the requirements of a task; `others_start(kind,
        requires)`: whether another node could start such a task now.
        """
        self._bus, self._config = bus, bus.config
        self._node, self._incarnation, self._slots = node, incarnation, slots
        self._spool, self._deliveries, self._is_alive, self._changed = spool, deliveries, is_alive, changed
        self._checkpoints, self._lacks = checkpoints, lacks
        self._load = NodeLoad(slots, deliveries, others_start)
        self.avoid: Callable[[str], None] = lambda subject: None
        """`avoid(subject)`: leave the lane of that subject to other nodes for a while."""
        self._executor: Executor | None = None
        self._completion: Completion | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self.alive_at = self._loop.time()
        """When the event loop last ran, monotonic; the heartbeat updates it."""
        self._doubt_until = 0.0

    def wire(self, executor: Executor, completion: Completion) -> None:
        """Set the parts that depend on this one in turn."""
        self._executor, self._completion = executor, completion

    @property
    def executor(self) -> Executor:
        """Runs the jobs."""
        assert self._executor is not None
        return self._executor

    @property
    def completion(self) -> Completion:
        """Writes the result records."""
        assert self._completion is not None
        return self._completion

    def load(self) -> Load:
        """What this node holds, for the pull plan."""
        return self._load.view(self.executor)

    def shed(self) -> None:
        """Return tasks that will not start soon, the latest first: those that were taken as short, because other nodes
        may be idle, and those that wait for several slots which another node has.
        """
        if not self.unstarted:
            return
        for delivery in self._load.misplaced(self.executor):
            self._return(delivery)
        means_s = self._load.means_s(self.executor)
        for kind, count in surplus(self._load.waiting, means_s, self._slots, self._config).items():
            waiting = [
                delivery for delivery in self._deliveries if not delivery.started_at and delivery.task.kind == kind
            ]
            for delivery in waiting[max(0, len(waiting) - count) :]:
                self._return(delivery)

    def _return(self, delivery: Delivery) -> None:
        self._deliveries.nak(delivery, SHED_DELAY_S)
        self.executor.cancel(delivery)

    @property
    def unstarted(self) -> int:
        """How many tasks this node holds that no worker has started."""
        return self._load.unstarted

    # --- admitting ----------------------------------------------------------------------------------
    def on_message(self, message: Message, stream_seq: int, delivered: int) -> None:
        """Take one delivery from a lane. `delivered`: how often the server has delivered this message."""
        now = self._loop.time()
        if now - self.alive_at > self._config.heartbeat_interval_s * 1.5 + self._config.stall_limit_s:
            self.stalled()
        task = decoding.lane_task(message.subject, message.data)
        if isinstance(task, Unreadable):
            # A program other than a Queztl client published it. Unless it is terminated, it is delivered for ever.
            self._spawn(self._refuse(message, stream_seq, task.reason), f"refuse message {stream_seq}")
            return
        if task.requires and self._lacks(task.requires):
            # Its lane holds a class of requirements, of which this node does not meet these.
            self.avoid(message.subject)
            self._bus.nak(message.reply, MISPLACED_DELAY_S * 2 ** min(delivered - 1, 4))
            return
        resent = _RESENT in message.raw_headers
        doubtful = now < self._doubt_until
        delivery = Delivery(task, message.reply, stream_seq, delivered, self._bus.epoch, now)
        delivery.cores = self._load.cores(task)
        delivery.suspect, delivery.trusted = resent or delivered > 1 or doubtful, not doubtful
        if delivery.cores > 1 and self._load.is_misplaced(delivery, self.executor):
            # A pull that this node sent when its slots were free.
            self._bus.nak(message.reply, SHED_DELAY_S)
            return
        if not self._deliveries.take(delivery):
            return
        delivery.attempt = first_attempt(task.max_attempts or self._config.max_attempts)
        self._load.add(delivery)
        if delivery.suspect or task.blobs or task.payload_ref is not None or task.expires_s:
            self._spawn(self._admit(delivery), f"admit {task.id}")
        else:
            self._run(delivery, {}, task.payload)

    async def _refuse(self, message: Message, stream_seq: int, reason: str) -> None:
        """End a message that can't be a task."""
        try:
            await dead_letters.bury_unreadable(self._bus, self._node, message.subject, stream_seq, message.data, reason)
        except QueztlError as error:
            log.warning("could not store the dead letter of message %d yet: %s", stream_seq, error)
            self._bus.nak(message.reply, PREPARE_AGAIN_S)
        else:
            self._bus.term(message.reply)

    async def _admit(self, delivery: Delivery) -> None:
        """Read the task's records and fetch its blobs, then run it."""
        task = delivery.task
        submitted = False
        try:
            if delivery.suspect and not await self._may_run(delivery):
                return
            folder = delivery.folder = self._spool / f"{task.id}.{delivery.stream_seq}.{delivery.delivered}"
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
            expired = await self._has_expired(delivery)
            if not self._is_still_held(delivery):
                return
            if expired:
                error = TaskError("expired", "it did not start before it expired")
                self.completion.end(delivery, End("expired", error))
                return
            submitted = True
            self._run(delivery, blobs, payload, resume)
        except NotFound as missing:
            error = TaskError("blob_missing", str(missing), (("payload", "names a blob that does not exist"),))
            self.completion.end(delivery, End("failed", error))
        except QueztlError as error:
            log.warning("could not prepare task %s; returning it to its lane: %s", task.id, error)
            self._deliveries.nak(delivery, PREPARE_AGAIN_S)
        finally:
            if not submitted:
                _clear(delivery)
                self._load.remove(delivery)
                self._changed()

    def _is_still_held(self, delivery: Delivery) -> bool:
        """Whether this node must still run the task, after its records were read and its blobs fetched.

        Without this check a node would run tasks that it returned while it admitted them.
        """
        if delivery.ended:
            self._deliveries.ack(delivery)
        elif delivery.withdrawn:
            self._deliveries.drop(delivery)
        return not (delivery.ended or delivery.withdrawn)

    async def _may_run(self, delivery: Delivery) -> bool:
        """Whether a task that may have run before must run here; if not, it is settled. Raises: BusUnavailable."""
        task = delivery.task
        end = await records.read_end(self._bus, task.id)
        if end is not None:
            self._deliveries.ack(delivery)
            return False
        state = await records.read_state(self._bus, task.id)
        if state is None:
            return True
        is_own = state.node == self._node and state.incarnation == self._incarnation
        # It runs here when it was sent twice: each message is a delivery of its own.
        runs = len(self._deliveries.of_task(task.id)) > 1 if is_own else self._is_alive(state.node, state.incarnation)
        if state.state == "running" and runs:
            self._deliveries.nak(delivery, RUNNING_ELSEWHERE_DELAY_S)
            return False
        delivery.attempt = attempt_after(state, delivery.attempt, is_own)
        poison = lost_too_often(delivery.attempt)
        if poison is not None:
            self.completion.end(delivery, poison)
            return False
        return True

    async def _has_expired(self, delivery: Delivery) -> bool:
        """Whether the task waited too long in its lane, by the clock of the bus. Raises: BusUnavailable."""
        expires_s = delivery.task.expires_s
        if not expires_s:
            return False
        server_now = await self._bus.clock(subjects.WORK).earliest()
        return has_expired(expires_s, stored_at_of_ack(delivery.reply), server_now)

    def _run(
        self,
        delivery: Delivery,
        blobs: dict[str, Path],
        payload: bytes | msgspec.Raw,
        resume: Path | None = None,
    ) -> None:
        task = delivery.task
        spec = KINDS.get(task.kind)
        if spec is None:
            self._load.remove(delivery)
            log.warning("this node does not know the kind %s; returning task %s to its lane", task.kind, task.id)
            self._deliveries.nak(delivery, RUNNING_ELSEWHERE_DELAY_S)
            return
        job = Job(
            id=task.id,
            kind=task.kind,
            payload=bytes(payload),
            cores=delivery.cores,
            timeout_s=task.timeout_s or spec.timeout_s,
            memory_mb=max(spec.resources.memory_mb, int(task.requires.get("memory_mb") or 0)),
            blobs=blobs,
            resume=resume,
            token=delivery,
        )
        self.executor.submit((job,))

    # --- callbacks of the executor -------------------------------------------------------------------
    def on_started(self, job: Job) -> None:
        """A worker got the job."""
        delivery: Delivery = job.token
        if not delivery.started_at:
            delivery.started_at, delivery.started_unix = self._loop.time(), time()
            self._deliveries.mark_changed(delivery.started_at)
            self._load.start(delivery)

    def on_called_back(self, job: Job) -> None:
        """The job waits for a worker again, because the job before it turned out long; it may be returned."""
        delivery: Delivery = job.token
        if delivery.started_at:
            delivery.started_at = delivery.started_unix = 0.0
            self._load.stop(delivery)
            self._load.add(delivery)
            self.completion.revert_to_queued(delivery)

    def on_ended(self, job: Job) -> None:
        """The job left the executor."""
        delivery: Delivery = job.token
        if delivery.started_at:
            self._load.stop(delivery)
        else:
            self._load.remove(delivery)
        _clear(delivery)

    def stalled(self) -> None:
        """This process stood still: other nodes may hold its deliveries by now, so it drops those that wait.

        The server delivers them again, perhaps to this node, after `ack_wait_s` at the latest.
        """
        self.alive_at = self._loop.time()
        # Messages that waited in the socket while the process stood still may have been delivered elsewhere by now.
        self._doubt_until = self.alive_at + DOUBT_S
        self._deliveries.distrust()
        for delivery in self._deliveries:
            if not delivery.started_at:
                delivery.withdrawn = True
                self.executor.cancel(delivery)

    def cancel(self, task: str) -> None:
        """The task was cancelled: end its worker, or keep it from starting."""
        for delivery in self._deliveries.of_task(task):
            if not self.executor.cancel(delivery):
                delivery.ended = True

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = self._loop.create_task(coroutine, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _clear(delivery: Delivery) -> None:
    if delivery.folder is not None:
        shutil.rmtree(delivery.folder, ignore_errors=True)
