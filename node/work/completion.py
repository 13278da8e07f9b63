"""From the end of an attempt to a settled message: the result record first, then the acknowledgement.

The record `.end` is written once ("expected last sequence 0"). A refusal means that the task has ended before, which is
as good: the message is acknowledged only after a stored record is known. Results over 128 KiB go into the blob store
first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from time import time
from typing import Any

import msgspec

from mesh import subjects
from mesh.bus import reserved
from mesh.bus.client import Bus
from mesh.bus.errors import WrongSequence
from mesh.bus.wire import header_block
from mesh.errors import QueztlError
from mesh.membership.member import Member
from mesh.messages import NOTHING, BlobRef, Raw, Task, TaskEnd, TaskError, TaskState, encode
from mesh.scheduling.placement import is_runnable
from mesh.tasks import blob_refs, dead_letters, records
from mesh.tasks.records import SMALL_BYTES, end_headers
from node.executor.jobs import Finished, Job
from node.work.checkpoints import Checkpoints
from node.work.deliveries import Deliveries, Delivery
from node.work.outcome import End, Retry, decide

log = logging.getLogger(__name__)
#: A write that the bus can't take now (full, unreachable) is repeated after this, seconds.
WRITE_AGAIN_S = 1.0
#: The state record of a long task is rewritten this often, before it expires, seconds.
STATE_AGAIN_S = 600.0
PROGRESS_EVERY_S = 0.5
#: Text is written more often, because users read it while it grows, seconds.
TEXT_EVERY_S = 0.2


class Completion:
    """Writes the result records and state records of one node's tasks."""

    def __init__(
        self,
        bus: Bus,
        *,
        node: str,
        incarnation: str,
        deliveries: Deliveries,
        checkpoints: Checkpoints,
        on_ended: Callable[[Any], None],
        changed: Callable[[], None],
        members: Callable[[], Iterable[Member]] = lambda: (),
    ) -> None:
        self._members = members
        self._bus, self._config = bus, bus.config
        self._node, self._incarnation = node, incarnation
        self._deliveries, self._on_ended, self._changed = deliveries, on_ended, changed
        self._checkpoints = checkpoints
        self._background: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self._end_headers = header_block(end_headers(SMALL_BYTES, self._config))
        self._small_end_headers = header_block(end_headers(0, self._config))
        self._state_headers = header_block(reserved.lifetime(self._config.result_ttl_s))
        self.done = self.failed = 0
        """Tasks whose result record this node has stored."""

    # --- result records -----------------------------------------------------------------------------
    def on_finished(self, finished: Sequence[Finished]) -> None:
        """Settle the jobs that the executor reports as finished."""
        for end in finished:
            delivery: Delivery = end.job.token
            self._on_ended(end.job)
            if delivery.withdrawn and not delivery.started_at:
                self._deliveries.drop(delivery)
                continue
            decision = self._decide(delivery, end.error)
            if isinstance(decision, Retry):
                self._spawn(self._retry(delivery, decision), f"retry {delivery.task.id}")
            elif end.result_file is not None or end.attached:
                self._spawn(self._end_large(delivery, decision, end), f"upload result of {delivery.task.id}")
            else:
                self.end(delivery, decision, end)
        self._changed()

    def _decide(self, delivery: Delivery, error: TaskError | None) -> End | Retry:
        elsewhere = True
        if error is not None and error.code == "unavailable":
            others = (member for member in self._members() if member.record.id != self._node)
            elsewhere = is_runnable(delivery.task.requires, delivery.task.kind, others)
        return decide(delivery.attempt, error, self._node, self._config, elsewhere)

    def end(self, delivery: Delivery, decision: End, finished: Finished | None = None) -> None:
        """Write the result record, and acknowledge once this one or another one is stored."""
        if decision.dead_letter:
            record = self._record(delivery, decision, finished)
            self._spawn(self._bury(delivery, record), f"store the dead letter of {delivery.task.id}")
            return
        self._write(delivery, self._record(delivery, decision, finished))

    def _record(
        self, delivery: Delivery, decision: End, finished: Finished | None, ref: BlobRef | None = None
    ) -> TaskEnd:
        task = delivery.task
        return TaskEnd(
            id=task.id,
            kind=task.kind,
            state=decision.state,
            node=self._node,
            attempt=delivery.attempt.number,
            submitted_at=task.submitted_at,
            started_at=(finished.started_at if finished else 0.0) or delivery.started_unix,
            ended_at=time(),
            result=Raw(finished.result) if finished and finished.result and decision.state == "done" else NOTHING,
            result_ref=ref,
            content_type=finished.content_type if finished and decision.state == "done" else "",
            info=as_plain(finished.info) if finished and decision.state == "done" else {},
            error=decision.error,
        )

    def _write(self, delivery: Delivery, end: TaskEnd) -> None:
        data = encode(end)
        headers = self._small_end_headers if len(data) < SMALL_BYTES else self._end_headers

        def settled(_: bytes, error: QueztlError | None) -> None:
            if error is None:
                self.done += end.state == "done"
                self.failed += end.state == "failed"
                self._settle(delivery)
            elif isinstance(error, WrongSequence):
                self._spawn(self._confirm_ended(delivery, end), f"confirm the end of {end.id}")
            else:
                log.warning("could not store the result record of %s yet: %s", end.id, error)
                self._loop.call_later(WRITE_AGAIN_S, self._write, delivery, end)

        self._bus.post(subjects.end(end.id), data, headers, settled)

    def _settle(self, delivery: Delivery) -> None:
        """A result record is stored, by this node or another one."""
        self._deliveries.ack(delivery)
        self._clean_up(delivery.task)

    async def _confirm_ended(self, delivery: Delivery, end: TaskEnd) -> None:
        """The bus refused this result record because there is one already: read it before the message is acknowledged.

        A partitioned server may refuse it because of a record that is never committed. Acknowledging the message for
        such a record would lose the result.
        """
        try:
            stored = await records.read_end(self._bus, end.id)
        except QueztlError as error:
            log.info("could not read the result record of %s: %s", end.id, error)
            stored = None
        if stored is not None:
            self._settle(delivery)
        else:
            self._loop.call_later(WRITE_AGAIN_S, self._write, delivery, end)

    async def _end_large(self, delivery: Delivery, decision: End, finished: Finished) -> None:
        """Upload a large result and its files as blobs, then write the result record that names them."""
        ref = None
        if finished.result_file is not None:
            ref = await self._upload(delivery, finished.result_file, finished.content_type or "application/msgpack")
        files = {
            name: await self._upload(delivery, Path(file), content_type)
            for name, (file, content_type) in finished.attached.items()
        }
        if files:
            finished.result = with_files(finished.result, files)
        self._write(delivery, self._record(delivery, decision, finished, ref))

    async def _upload(self, delivery: Delivery, path: Path, content_type: str) -> BlobRef:
        """Store a file as a blob, however long the bus takes, and remove it."""
        try:
            while True:
                try:
                    return await self._bus.objects.put(path, content_type)
                except QueztlError as error:
                    log.warning("could not upload the result of %s yet: %s", delivery.task.id, error)
                    await asyncio.sleep(WRITE_AGAIN_S)
        finally:
            path.unlink(missing_ok=True)

    async def _bury(self, delivery: Delivery, end: TaskEnd) -> None:
        """Store the dead letter before the result record: a crash between the two repeats both and loses neither."""
        while True:
            try:
                await dead_letters.bury(self._bus, delivery.task, end)
                break
            except QueztlError as error:
                log.warning("could not store the dead letter of %s yet: %s", end.id, error)
                await asyncio.sleep(WRITE_AGAIN_S)
        self._write(delivery, end)

    async def _retry(self, delivery: Delivery, decision: Retry) -> None:
        """Record the failed attempt, then return the task: no other node runs it while it is "running" here."""
        state = self._state_of(delivery, "queued", 0.0, "")
        state = msgspec.structs.replace(
            state, attempt=decision.next_attempt, crashed_on=decision.crashed_on, error=decision.error
        )
        while True:
            try:
                await self._bus.store(subjects.state(state.id), encode(state), ttl_s=self._config.result_ttl_s)
                break
            except QueztlError as error:
                log.warning("could not record the failed attempt of %s yet: %s", state.id, error)
                await asyncio.sleep(WRITE_AGAIN_S)
        await self._checkpoints.release(state.id)
        self._deliveries.nak(delivery, decision.delay_s)

    def _clean_up(self, task: Task) -> None:
        """Remove the checkpoint and the claim-checked payload of a task that ended, and its references to blobs."""
        if self._checkpoints.has(task.id):
            self._spawn(self._checkpoints.remove(task.id), f"remove checkpoint of {task.id}")
        if task.payload_ref is not None:
            self._spawn(self._bus.objects.delete(task.payload_ref.blob), f"remove payload of {task.id}")
        if task.blobs:
            self._spawn(blob_refs.release(self._bus, task.blobs, task.id), f"release blobs of {task.id}")

    # --- state records ------------------------------------------------------------------------------
    def write_states(self, now: float) -> None:
        """Write the state records of tasks that have run for longer than `state_after_s`, and refresh old ones."""
        for delivery in self._deliveries.older_than(now - self._config.state_after_s):
            if not delivery.started_at or now - delivery.started_at < self._config.state_after_s:
                continue
            if not delivery.state_at or now - delivery.state_at > STATE_AGAIN_S:
                self._write_state(delivery, now, 0.0, "")

    def on_progress(self, job: Job, fraction: float, note: str, text: str, text_from: int) -> None:
        """A running task reports its progress, and the end of the text that it has written."""
        delivery: Delivery = job.token
        now = self._loop.time()
        if now - delivery.state_at >= (TEXT_EVERY_S if text else PROGRESS_EVERY_S):
            self._write_state(delivery, now, fraction, note, text, text_from)

    def revert_to_queued(self, delivery: Delivery) -> None:
        """Undo the "running" of a task that waits again: the next node to get it would leave it to this one forever."""
        if delivery.state_at:
            delivery.state_at = 0.0
            state = self._state_of(delivery, "queued", 0.0, "")
            self._bus.post(subjects.state(state.id), encode(state), self._state_headers, _log_refusal)

    def _write_state(
        self, delivery: Delivery, now: float, progress: float, note: str, text: str = "", text_from: int = 0
    ) -> None:
        delivery.state_at = now
        state = self._state_of(delivery, "running", progress, note)
        if text:
            state = msgspec.structs.replace(state, text=text, text_from=text_from)
        self._bus.post(subjects.state(state.id), encode(state), self._state_headers, _log_refusal)

    def _state_of(self, delivery: Delivery, state: str, progress: float, note: str) -> TaskState:
        task = delivery.task
        return TaskState(
            id=task.id,
            kind=task.kind,
            state=state,
            node=self._node,
            incarnation=self._incarnation,
            attempt=delivery.attempt.number,
            submitted_at=task.submitted_at,
            started_at=delivery.started_unix,
            updated_at=time(),
            progress=progress,
            note=note,
            crashed_on=delivery.attempt.crashed_on,
            lost=delivery.attempt.lost,
        )

    def _spawn(self, coroutine: Coroutine[Any, Any, object], name: str) -> None:
        task = self._loop.create_task(coroutine, name=name)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("could not %s: %s", task.get_name(), error, exc_info=error)


def with_files(result: bytes, files: dict[str, BlobRef]) -> bytes:
    """A result (a small dict, MessagePack) with its files: `files` is name -> {blob, size, content_type}."""
    return encode(msgspec.msgpack.decode(result) | {"files": files})


def as_plain(info: Any) -> dict[str, Any]:
    """The facts about a result that is bytes, as the worker sent them: raw MessagePack, or a dict."""
    if isinstance(info, (bytes, bytearray)):
        return dict(msgspec.msgpack.decode(info)) if info else {}
    return dict(info or {})


def _log_refusal(_: bytes, error: QueztlError | None) -> None:
    if error is not None:
        log.debug("could not store a task's state record: %s", error)
