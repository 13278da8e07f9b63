"""One mesh goes into another: what is moved, in which order, and that nothing is lost on the way.

The order stands in the loser's KV `mesh` (`merge`); its master carries it out (`mesh/merge/detector.py`), its nodes
leave it (`node/lifecycle/merge_follow.py`). Everything here may be done again after a crash at any point: what is there
already is not written twice (the same ids, the same conditions), and a message goes from the loser only after the
winner has confirmed it. A task that is on both sides for a moment runs twice at worst, and ends once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mesh import subjects
from mesh.bus.errors import ApiError, KeyExists, WrongSequence
from mesh.bus.replies import StoredMessage
from mesh.bus.streams import declare_lane
from mesh.coordination import decode_lease
from mesh.errors import BusUnavailable, Busy, QueztlError
from mesh.membership.mesh_record import check_wire_version, read_mesh_record
from mesh.merge.order import update_order
from mesh.merge.policy import MeshSummary
from mesh.messages import decode_node, decode_task
from mesh.tasks import records

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)

#: How long the loser's nodes may take to finish what they run, and a little more.
DRAIN_WITHIN_S = 45.0
LOOK_EVERY_S = 0.5
#: A full queue on the other side is waited for.
AGAIN_AFTER_S = 1.0
_CARRIED = ("Nats-Schedule", "Nats-Schedule-Target", "Content-Type")

Confirmed = Callable[[], Awaitable[bool]]
Told = Callable[[dict[str, int]], Awaitable[None]]


# --- what is read -----------------------------------------------------------------------------------
async def read_identity(bus: Bus) -> MeshSummary:
    """Who a mesh is, and nothing more. Raises: BusUnavailable (no mesh serves there), IncompatibleMesh, ApiError."""
    record = await read_mesh_record(bus)
    if record is None:
        raise BusUnavailable("what answers there is no mesh")
    check_wire_version(record)
    return MeshSummary(record.id, record.name, record.founder)


async def read_mesh_summary(bus: Bus) -> MeshSummary:
    """A mesh, as its servers tell. Raises: as `read_identity`."""
    who = await read_identity(bus)
    work, later, tasks, dead = await asyncio.gather(
        *(bus.stream_info(stream) for stream in (subjects.WORK, subjects.LATER, subjects.TASKS, subjects.DEAD))
    )
    nodes = [decode_node(one.value) for one in await bus.kv(subjects.KV_NODES).entries()]
    lease = await bus.kv(subjects.KV_LEASE).get(subjects.LEASE_KEY)
    return replace(
        who,
        nodes=sum(one.state == "up" for one in nodes),
        age_s=work.age_s,
        unfinished=work.messages + later.messages,
        stored=tasks.messages + dead.messages,
        lease=(decode_lease(lease.value).node, 0) if lease else ("", 0),
    )


async def messages(bus: Bus, stream: str, subject: str = ">") -> AsyncIterator[StoredMessage]:
    """Every message of a stream, the oldest first. Raises: BusUnavailable, ApiError."""
    start = 1
    while (stored := await bus.read_next(stream, subject, start)) is not None:
        yield stored
        start = stored.sequence + 1


# --- moving -----------------------------------------------------------------------------------------
class Mover:
    """Moves everything from `loser` to `winner`. `confirmed` says before each step whether it may go on."""

    def __init__(
        self, loser: Bus, winner: Bus, confirmed: Confirmed, told: Told, busy: Callable[[], bool] = lambda: False
    ) -> None:
        """`busy`: whether any node of the loser holds work."""
        self._loser, self._winner, self._confirmed, self._told, self._busy = loser, winner, confirmed, told, busy
        self.moved: dict[str, int] = {}
        self._from = ""

    async def run(self) -> None:
        """All of it, and then the order says `moved`. Raises: Overtaken, BusUnavailable, ApiError."""
        self._from = (await read_mesh_summary(self._loser)).id
        await self._drained()
        await self._refuse_new_work()
        await self._objects(subjects.BLOBS)
        await self._objects(subjects.BLOBS_KEPT)
        await self._copy(subjects.KV_BLOB_REFS, "names of blobs")
        await self._copy(subjects.KV_CLAIMS, "idempotency keys")
        await self._records()
        await self._letters()
        await self._delayed()
        await self._refuse_delayed_work()
        # Until nothing is left: a door message may still become a task while we look.
        while await self._delayed() + await self._work():
            await self._go_on()
        await self._go_on()
        await update_order(self._loser, phase="moved", moved=self.moved)

    async def _go_on(self) -> None:
        if not await self._confirmed():
            raise Overtaken("another master carries the merge on")
        await self._told(self.moved)

    def _count(self, what: str) -> None:
        self.moved[what] = self.moved.get(what, 0) + 1

    async def _drained(self) -> None:
        """Wait for the loser's nodes to end what they run and to take in what lies at the door (there it gets its id),
        for a while: what has not ended by then runs again."""
        deadline = time.monotonic() + DRAIN_WITHIN_S
        while time.monotonic() < deadline:
            # Not what the lanes count as delivered: what was given back stays in that count until somebody takes it.
            ingress = (await self._loser.stream_info(subjects.WORK, subjects.WORK_SUBJECTS[0])).subjects
            if not ingress and not self._busy():
                return
            await self._go_on()
            await asyncio.sleep(LOOK_EVERY_S)

    async def _refuse_new_work(self) -> None:
        """A full queue is what submitters know to come back to: by then they find the other mesh."""
        await self._loser.update_stream(subjects.WORK, max_bytes=1)

    async def _refuse_delayed_work(self) -> None:
        """LATER can't be full and refuse (10052), so it takes no subject any more: what would be accepted after it was
        looked through for the last time would be lost with this mesh's servers."""
        await self._loser.update_stream(subjects.LATER, subjects=[subjects.LATER_CLOSED])

    async def _objects(self, bucket: str) -> None:
        """Blobs under their own ids, bytes before the name; what is half there from an earlier try is begun afresh."""
        stream = f"OBJ_{bucket}"
        metas = [one async for one in messages(self._loser, stream, f"$O.{bucket}.M.>")]
        for meta in metas:
            facts = json.loads(meta.data or b"{}")
            if not facts or facts.get("deleted") or await records.read_last(self._winner, stream, meta.subject):
                continue
            await self._go_on()
            chunks = f"$O.{bucket}.C.{facts['nuid']}"
            await self._winner.purge(stream, chunks)
            async for chunk in messages(self._loser, stream, chunks):
                await self._store(chunk.subject, chunk.data, {})
            await self._store(meta.subject, meta.data, {"Nats-Rollup": "sub"})
            self._count("blobs")

    async def _copy(self, bucket: str, what: str) -> None:
        """A bucket's values; what the winner has stays."""
        for entry in await self._loser.kv(bucket).entries():
            try:
                await self._winner.kv(bucket).create(entry.key, entry.value)
                self._count(what)
            except KeyExists:
                continue

    async def _records(self) -> None:
        """Ends and states of tasks, each with what is left of its lifetime; a first end stays the first."""
        now = (await self._loser.stream_info(subjects.TASKS)).now  # ages by the server's own clock
        async for one in messages(self._loser, subjects.TASKS):
            ttl_s = ttl_of(one.headers)
            left_s = ttl_s - max(0.0, now - one.stored_at) if ttl_s else 0.0
            if not one.data or left_s < 0:
                continue
            headers = {"Nats-TTL": f"{max(1, round(left_s))}s"} if left_s else {}
            is_end = one.subject.endswith(".end")
            try:
                await self._store(one.subject, one.data, headers, expect_last=0)
                self._count("results" if is_end else "states")
            except WrongSequence:
                continue
            if self.moved.get("results", 0) % 256 == 0:
                await self._go_on()

    async def _letters(self) -> None:
        async for one in messages(self._loser, subjects.DEAD):
            if one.data and not await records.read_last(self._winner, subjects.DEAD, one.subject):
                await self._store(one.subject, one.data, {})
                self._count("dead letters")

    async def _delayed(self) -> int:
        """Schedules, and delayed work that is due."""
        found = 0
        async for one in messages(self._loser, subjects.LATER):
            found += 1
            headers = {name: one.headers[name] for name in _CARRIED if name in one.headers}
            await self._store(one.subject, one.data, headers, msg_id=one.subject)
            await _remove(self._loser, subjects.LATER, one.sequence)
            self._count("delayed tasks")
        return found

    async def _work(self) -> int:
        """Tasks in their lanes. What has ended is not moved; the others are marked as maybe a second copy, so that
        whoever is given one reads the task's records first."""
        found = 0
        async for one in messages(self._loser, subjects.WORK):
            found += 1
            if found % 64 == 0:
                await self._go_on()
            lane = lane_of(one.subject)
            if lane is not None:
                task = decode_task(one.data)
                if not await self._has_ended(task.id):
                    await self._lane(lane)
                    await self._store(one.subject, one.data, {"Queztl-Resent": "1"}, msg_id=task.id)
                    self._winner.send(subjects.wake(*lane), b"")
                    self._count("tasks")
            else:
                await self._store(one.subject, one.data, one.headers, msg_id=f"{self._from}-{one.sequence}")
                self._count("door messages")
            await _remove(self._loser, subjects.WORK, one.sequence)
        return found

    async def _has_ended(self, task: str) -> bool:
        """Whether a task has its end; one that came here after the records were looked through is taken along."""
        if await records.read_end(self._winner, task) is not None:
            return True
        late = await records.read_end(self._loser, task)
        if late is not None:
            await records.write_end(self._winner, late)
        return late is not None

    async def _lane(self, lane: tuple[str, str, str]) -> None:
        pool = await self._loser.kv(subjects.KV_POOLS).get(lane[1])
        if pool is not None:
            await self._winner.kv(subjects.KV_POOLS).put(lane[1], pool.value)
        await declare_lane(self._winner, *lane)

    async def _store(
        self, subject: str, data: bytes, headers: Mapping[str, str], msg_id: str = "", expect_last: int | None = None
    ) -> None:
        """Raises: WrongSequence; waits while the winner is full."""
        while True:
            try:
                await self._winner.store(
                    subject, data, msg_id=msg_id, expect_last=expect_last, headers=headers, resend=True
                )
                return
            except Busy as full:
                if isinstance(full, BusUnavailable):
                    raise
                log.info("the other mesh's queue is full; waiting")
                await asyncio.sleep(AGAIN_AFTER_S)
                await self._go_on()


class Overtaken(QueztlError):
    """This node is not master any more."""


def ttl_of(headers: Mapping[str, str]) -> float:
    """The lifetime a message was stored with, seconds; 0: none. Pure."""
    text = headers.get("Nats-TTL", "")
    return float(text[:-1]) if text.endswith("s") and text[:-1].isdigit() else 0.0


def lane_of(subject: str) -> tuple[str, str, str] | None:
    """The lane of `work.<kind>.<pool>.<urgency>.<id>`; None for a message of the door. Pure."""
    parts = subject.split(".")
    return (parts[1], parts[2], parts[3]) if len(parts) == 5 else None


async def _remove(bus: Bus, stream: str, sequence: int) -> None:
    """One that is gone already is no error."""
    try:
        await bus.delete_message(stream, sequence)
    except ApiError as error:
        log.debug("message %d of %s could not be removed: %s", sequence, stream, error)
