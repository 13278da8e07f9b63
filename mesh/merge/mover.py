"""Merging one mesh into another: everything is moved from the source to the target, and nothing is lost.

The order is in the source's KV `mesh` (`merge`). Its leader carries it out (`mesh/merge/detector.py`), and its nodes
move to the target (`node/lifecycle/merge_follow.py`). After a crash at any point everything here may be repeated: what
the target has already is not written twice (the same ids and conditions), and a message is removed from the source only
after the target has confirmed it. A task that is in both meshes for a moment runs twice at worst, and ends once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from mesh import decoding, subjects
from mesh.bus import reserved
from mesh.bus.errors import ApiError, DiskFull, KeyExists, WrongSequence
from mesh.bus.publisher import RESENT_HEADER
from mesh.bus.replies import StoredMessage
from mesh.bus.streams import declare_lane
from mesh.decoding import Unreadable, readable, readable_of
from mesh.errors import BusUnavailable, Busy, QueztlError
from mesh.lanes import Lane
from mesh.membership.mesh_record import check_wire_version, read_mesh_record
from mesh.merge.carried import lane_of, left_s, schedule_shifted
from mesh.merge.order import CLOSED, accept, read_order, update_order
from mesh.merge.policy import MeshSummary
from mesh.messages import Task, encode
from mesh.tasks import dead_letters, records

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)

#: How long the nodes of the source may take to finish what they run, with a margin, seconds.
DRAIN_WITHIN_S = 45.0
LOOK_EVERY_S = 0.5
#: Nodes that live answer a ping within this, seconds.
ANSWER_WITHIN_S = 0.5
#: A write to a full stream of the target is repeated after this, seconds.
AGAIN_AFTER_S = 1.0
#: Headers of delayed tasks that are copied.
_COPIED_HEADERS = (reserved.SCHEDULE, reserved.SCHEDULE_TARGET, "Content-Type")

Confirmed = Callable[[], Awaitable[bool]]
OnProgress = Callable[[dict[str, int]], Awaitable[None]]


# --- reading ----------------------------------------------------------------------------------------
async def read_identity(bus: Bus) -> MeshSummary:
    """The identity of the mesh on this bus. Raises: BusUnavailable (there is no mesh), IncompatibleMesh, ApiError."""
    record = await read_mesh_record(bus)
    if record is None:
        raise BusUnavailable("there is no mesh on this bus")
    check_wire_version(record)
    return MeshSummary(record.id, record.name, record.founder)


async def read_mesh_summary(bus: Bus) -> MeshSummary:
    """The summary of the mesh on this bus. Raises: as `read_identity`."""
    identity = await read_identity(bus)
    work, later, tasks, dead = await asyncio.gather(
        *(bus.stream_info(stream) for stream in (subjects.WORK, subjects.LATER, subjects.TASKS, subjects.DEAD))
    )
    nodes = readable_of(decoding.node, await bus.kv(subjects.KV_NODES).entries())
    lease = readable(decoding.lease, await bus.kv(subjects.KV_LEASE).get(subjects.LEASE_KEY))
    return replace(
        identity,
        nodes=await _living(bus) or sum(node.state == "up" for node in nodes),
        age_s=work.age_s,
        unfinished=work.messages + later.messages,
        stored=tasks.messages + dead.messages,
        lease=(lease.node, lease.incarnation) if lease else ("", ""),
    )


async def _living(bus: Bus) -> int:
    """The number of nodes that answer on that bus: a copied store has the records of nodes that are elsewhere."""
    inbox, answers = bus.new_inbox(), set[bytes]()
    subscription = await bus.subscribe(inbox, lambda message: answers.add(message.data))
    try:
        bus.send(f"$SRV.PING.{subjects.SERVICE_NAME}", b"", reply=inbox)
        await asyncio.sleep(ANSWER_WITHIN_S)
    finally:
        await subscription.close()
    return len(answers - {b""})


async def messages(bus: Bus, stream: str, subject: str = ">") -> AsyncIterator[StoredMessage]:
    """All messages of a stream (on a subject), oldest first. Raises: BusUnavailable, ApiError."""
    start = 1
    while (stored := await bus.read_next(stream, subject, start)) is not None:
        yield stored
        start = stored.sequence + 1


# --- moving -----------------------------------------------------------------------------------------
class Mover:
    """Moves everything from the mesh on `source` to that on `target`."""

    def __init__(
        self,
        source: Bus,
        target: Bus,
        confirmed: Confirmed,
        on_progress: OnProgress,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        """`confirmed` is called before each step: whether this node is still leader; `busy`: whether any node of the
        source holds work."""
        self._source, self._target = source, target
        self._confirmed, self._on_progress, self._busy = confirmed, on_progress, busy
        self.moved: dict[str, int] = {}
        """What was moved -> how many."""
        self._source_id = ""

    async def run(self) -> None:
        """Move everything, then set the order's phase to `moved`. Raises: LeadershipLost, BusUnavailable, ApiError."""
        self._source_id = (await read_identity(self._source)).id
        await self._drain()
        await self._refuse_new_work()
        await self._move_blobs(subjects.BLOBS)
        await self._move_blobs(subjects.BLOBS_KEPT)
        await self._copy_bucket(subjects.KV_BLOB_REFS, "blob references")
        await self._copy_claims()
        await self._copy_records()
        await self._copy_dead_letters()
        await self._move_delayed()
        await self._refuse_delayed_work()
        # Repeated until nothing is left: an ingress message may become a task meanwhile.
        while await self._move_delayed() + await self._move_work():
            await self._checkpoint()
        await self._checkpoint()
        if (order := await read_order(self._source)) is None:
            raise LeadershipLost("the order to merge was withdrawn")
        # The target first: a bus host puts its store aside only where both meshes say that everything has been moved.
        await accept(self._target, self._source_id, msgspec.structs.replace(order, phase="moved"))
        await update_order(self._source, phase="moved", moved=self.moved)

    async def _checkpoint(self) -> None:
        """Report the progress. Raises: LeadershipLost when this node may not go on."""
        if not await self._confirmed():
            raise LeadershipLost("another leader continues the merge")
        await self._on_progress(self.moved)

    def _count(self, name: str) -> None:
        self.moved[name] = self.moved.get(name, 0) + 1

    async def _drain(self) -> None:
        """Wait, for a limited time, until the nodes of the source have finished what they run and have taken in the
        ingress messages, which get their task ids there. What has not ended by then runs again."""
        deadline = time.monotonic() + DRAIN_WITHIN_S
        while time.monotonic() < deadline:
            # The lanes' count of deliveries is no measure: it includes redelivered messages until a node takes them.
            ingress = (await self._source.stream_info(subjects.WORK, subjects.WORK_SUBJECTS[0])).subjects
            if not ingress and not self._busy():
                return
            await self._checkpoint()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _refuse_new_work(self) -> None:
        """Make the queue full: submitters retry later, and then find the target. Its limit is kept for undoing."""
        limit = int((await self._source.stream_info(subjects.WORK)).config.get("max_bytes", -1))
        if limit == CLOSED:
            return
        await update_order(self._source, work_max_bytes=limit)
        await self._source.update_stream(subjects.WORK, max_bytes=CLOSED)

    async def _refuse_delayed_work(self) -> None:
        """LATER can't refuse messages when it is full (10052), so its subjects are removed: what it accepted after the
        last pass would be lost with the servers of the source."""
        await self._source.update_stream(subjects.LATER, subjects=[subjects.LATER_CLOSED])

    async def _move_blobs(self, bucket: str) -> None:
        """Copy blobs under their own ids, chunks before metadata. A partial copy of an earlier attempt is discarded."""
        stream = f"OBJ_{bucket}"
        metas = [message async for message in messages(self._source, stream, reserved.metadata_subject(bucket, ">"))]
        for meta in metas:
            facts = decoding.blob_facts(meta.data)
            if isinstance(facts, Unreadable) or facts.deleted:
                continue
            if await records.read_last(self._target, stream, meta.subject):
                continue
            await self._checkpoint()
            chunks = reserved.chunk_subject(bucket, facts.nuid)
            await self._target.purge(stream, chunks)
            async for chunk in messages(self._source, stream, chunks):
                await self._store(chunk.subject, chunk.data, {})
            await self._store(meta.subject, meta.data, reserved.ROLLUP)
            self._count("blobs")

    async def _copy_bucket(self, bucket: str, name: str) -> None:
        """Copy the keys that the target does not have."""
        for entry in await self._source.kv(bucket).entries():
            try:
                await self._target.kv(bucket).create(entry.key, entry.value)
                self._count(name)
            except KeyExists:
                continue

    async def _copy_claims(self) -> None:
        """Copy the idempotency keys that the target does not have, each with its age."""
        now = await self._source.clock(f"KV_{subjects.KV_CLAIMS}").earliest()
        for entry in await self._source.kv(subjects.KV_CLAIMS).entries():
            claim = readable(decoding.claim, entry)
            if claim is None:
                continue
            aged = msgspec.structs.replace(claim, age_s=claim.age_s + max(0.0, now - entry.stored_at))
            try:
                await self._target.kv(subjects.KV_CLAIMS).create(entry.key, encode(aged))
                self._count("idempotency keys")
            except KeyExists:
                continue

    async def _clock_difference(self, stream: str) -> float:
        """How far the target's clock is ahead of the source's, seconds."""
        return await self._target.clock(stream).latest() - await self._source.clock(stream).earliest()

    async def _aged(self, task: Task, message: StoredMessage) -> bytes:
        """The task with what is left of its time to expire: in the target it is stored anew."""
        if not task.expires_s:
            return message.data
        waited_s = await self._source.clock(subjects.WORK).earliest() - message.stored_at
        return encode(msgspec.structs.replace(task, expires_s=left_s(task.expires_s, waited_s)))

    async def _copy_records(self) -> None:
        """Copy end and state records, each with its remaining lifetime; existing records of the target stay."""
        now = (await self._source.stream_info(subjects.TASKS)).now  # ages by the server's own clock
        async for message in messages(self._source, subjects.TASKS):
            ttl_s = reserved.lifetime_s(message.headers)
            left_s = ttl_s - max(0.0, now - message.stored_at) if ttl_s else 0.0
            if not message.data or left_s < 0:
                continue
            headers = reserved.lifetime(left_s) if left_s else {}
            is_end = message.subject.endswith(".end")
            try:
                await self._store(message.subject, message.data, headers, expect_last=0)
                self._count("results" if is_end else "states")
            except WrongSequence:
                continue
            if self.moved.get("results", 0) % 256 == 0:
                await self._checkpoint()

    async def _copy_dead_letters(self) -> None:
        async for message in messages(self._source, subjects.DEAD):
            if message.data and not await records.read_last(self._target, subjects.DEAD, message.subject):
                await self._store(message.subject, message.data, {})
                self._count("dead letters")

    async def _move_delayed(self) -> int:
        """Move schedules, and delayed tasks that are due; returns how many."""
        found = 0
        async for message in messages(self._source, subjects.LATER):
            found += 1
            headers = {name: message.headers[name] for name in _COPIED_HEADERS if name in message.headers}
            if (schedule := headers.get(reserved.SCHEDULE)) is not None:
                headers[reserved.SCHEDULE] = schedule_shifted(schedule, await self._clock_difference(subjects.LATER))
            await self._store(message.subject, message.data, headers, msg_id=message.subject)
            await _remove(self._source, subjects.LATER, message.sequence)
            self._count("delayed tasks")
        return found

    async def _move_work(self) -> int:
        """Move the tasks in lanes, and ingress messages; returns how many. Tasks that have ended are not copied. The
        others are marked as possible duplicates, so that the node that gets one reads the task's records first."""
        found = 0
        async for message in messages(self._source, subjects.WORK):
            found += 1
            if found % 64 == 0:
                await self._checkpoint()
            lane = lane_of(message.subject)
            if lane is not None:
                task = decoding.lane_task(message.subject, message.data)
                if isinstance(task, Unreadable):
                    await dead_letters.bury_unreadable(
                        self._target, "", message.subject, message.sequence, message.data, task.reason
                    )
                elif not await self._has_ended(task.id):
                    await self._declare_lane(lane)
                    await self._store(
                        message.subject, await self._aged(task, message), {RESENT_HEADER: "1"}, msg_id=task.id
                    )
                    self._target.send(subjects.wake(*lane), b"")
                    self._count("tasks")
            else:
                await self._store(
                    message.subject, message.data, message.headers, msg_id=f"{self._source_id}-{message.sequence}"
                )
                self._count("ingress messages")
            await _remove(self._source, subjects.WORK, message.sequence)
        return found

    async def _has_ended(self, task: str) -> bool:
        """Whether a task has ended; an end that was written after `_copy_records` is copied."""
        if await records.read_end(self._target, task) is not None:
            return True
        late = await records.read_end(self._source, task)
        if late is not None:
            await records.write_end(self._target, late)
        return late is not None

    async def _declare_lane(self, lane: Lane) -> None:
        """Declare a lane, and the record of its pool, in the target."""
        pool = await self._source.kv(subjects.KV_POOLS).get(lane[1])
        if pool is not None:
            await self._target.kv(subjects.KV_POOLS).put(lane[1], pool.value)
        await declare_lane(self._target, *lane)

    async def _store(
        self, subject: str, data: bytes, headers: Mapping[str, str], msg_id: str = "", expect_last: int | None = None
    ) -> None:
        """Store a message in the target, and wait while its stream is full. Raises: WrongSequence, BusUnavailable."""
        while True:
            try:
                await self._target.store(
                    subject, data, msg_id=msg_id, expect_last=expect_last, headers=headers, resend=True
                )
                return
            except (Busy, DiskFull) as full:
                if isinstance(full, BusUnavailable):
                    raise
                log.info("the other mesh has no room; waiting: %s", full)
                await asyncio.sleep(AGAIN_AFTER_S)
                await self._checkpoint()


class LeadershipLost(QueztlError):
    """This node is no longer leader."""


async def _remove(bus: Bus, stream: str, sequence: int) -> None:
    """Delete a message; one that is gone already is not an error."""
    try:
        await bus.delete_message(stream, sequence)
    except ApiError as error:
        log.debug("could not delete message %d of %s: %s", sequence, stream, error)
