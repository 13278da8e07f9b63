"""Accepting work: from a checked wish to a message the bus holds durably.

The lane's consumer is made on first use; a large payload is put into the blob store first; a delayed task becomes a
schedule; an idempotency key is claimed before anything is published, and the claimer's crash in between is
mended by whoever uses the key next.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING

import msgspec

from mesh import subjects
from mesh.bus.errors import KeyExists
from mesh.bus.publisher import Settled
from mesh.bus.streams import declare_lane
from mesh.coordination import Pool, decode_plan
from mesh.errors import BadInput, BusUnavailable, Busy, Conflict, Fault, NotFound, QueztlError
from mesh.lanes import Lane, canonical, is_open
from mesh.messages import CLAIM_CHECK_BYTES, NOTHING, Claim, Task, decode_claim, encode
from mesh.scheduling.geo import Point
from mesh.tasks import blob_refs, records
from mesh.tasks.validation import Prepared, prepare
from mesh.views import Accepted, SubmitRequest

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)

#: A lane nobody published to for this long gets a wake-up hint with the next task.
QUIET_S = 0.5
DECLARED_FRESH_S = 5.0
#: Where there are nodes is read again after this.
REGIONS_FRESH_S = 30.0
#: How much delayed work there is, is read again after this.
LATER_FRESH_S = 1.0
#: A consumer is declared again when it may have been removed for idleness.
DECLARE_AGAIN_S = 120.0
#: The part of the shortest lifetime of a result within which a claim whose task can't be found was left behind by a
#: crash; after that the task may have ended, and its record gone.
CLAIM_MEND_SHARE = 0.9


class Submitter:
    """Publishes tasks under ids `<submitter>-<n>`."""

    def __init__(self, bus: Bus, name: str) -> None:
        self._bus, self.name = bus, name
        self._number = 0
        self._declared: dict[Lane, float] = {}
        self._published: dict[Lane, float] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        # Back on the bus it may be another server's, or another mesh's that this one went into.
        bus.on_back.append(self._declared.clear)
        self.regions: tuple[str, ...] = ()
        """Where there are nodes, as of `learn_regions`."""
        self.places: dict[str, Point] = {}
        """Where on the earth those regions are, as far as their nodes say so."""
        self._regions_at = float("-inf")
        self._later_full, self._later_looked_at = False, float("-inf")

    def next_id(self) -> str:
        """A fresh task id."""
        self._number += 1
        return subjects.task_id(self.name, self._number)

    def prepare(self, request: SubmitRequest, task: str = "") -> Prepared:
        """Check a wish. Raises: UnknownKind, BadInput."""
        return prepare(request, task or self.next_id(), time(), self._bus.config, self.regions, self.places)

    async def learn_regions(self, request: SubmitRequest) -> None:
        """Before `prepare`: work that says where it comes from needs to know where there are nodes.

        Raises: BusUnavailable.
        """
        now = self._loop.time()
        if request.origin and now - self._regions_at > REGIONS_FRESH_S:
            entry = await self._bus.kv(subjects.KV_PLAN).get(subjects.PLAN_KEY)
            plan = decode_plan(entry.value) if entry else None
            self.regions, self.places = (plan.regions, plan.places) if plan else ((), {})
            self._regions_at = now

    async def accept(self, request: SubmitRequest) -> Accepted:
        """Check, claim, publish; the answer means the bus holds it.

        Raises: UnknownKind, BadInput, Conflict, Busy, BusUnavailable, StorageFull.
        """
        await self.learn_regions(request)
        prepared = self.prepare(request)
        for blob in prepared.task.blobs:
            try:
                await self._bus.objects.info(blob)
            except NotFound as missing:
                raise BadInput(str(missing), (Fault("payload", f"names blob {blob}, which is not there"),)) from None
        if not request.idempotency_key:
            await self.publish(prepared)
            return Accepted(prepared.task.id, prepared.task.kind)
        return await self._accept_once(prepared, request.idempotency_key)

    async def publish(self, prepared: Prepared) -> None:
        """Make a checked task durable. Raises: Busy (queue full), BusUnavailable, StorageFull."""
        task = await self._claim_check(prepared.task)
        if task.blobs:
            await blob_refs.name(self._bus, task.blobs, task.id)
        if prepared.delay_s > 0:
            await self._schedule(task, time() + prepared.delay_s)
            return
        await self.ensure_lane(prepared.lane, task.requires)
        await self._bus.store(subjects.lane_subject(*prepared.lane, task.id), encode(task), msg_id=task.id, resend=True)
        self.wake(prepared.lane)

    def declared(self, lane: Lane) -> bool:
        """Whether the lane's consumer is known to exist, so that `post` may be used."""
        return self._loop.time() - self._declared.get(lane, -DECLARE_AGAIN_S) < DECLARE_AGAIN_S

    def post(self, prepared: Prepared, settled: Settled) -> None:
        """`publish` for many small tasks: at once, `settled(answer, error)` is called with the bus's answer.

        Only for what needs no blob and no delay, into a lane that is `declared`.
        """
        task = prepared.task
        subject = subjects.lane_subject(*prepared.lane, task.id)
        headers = f"NATS/1.0\r\nNats-Msg-Id: {task.id}\r\n\r\n".encode()
        self._bus.post(subject, encode(task), headers, settled)
        self.wake(prepared.lane)

    async def ensure_lane(self, lane: Lane, requires: dict[str, object]) -> None:
        """Have the lane's consumer (and its pool's record) exist before something is published into it."""
        if self.declared(lane):
            return
        if not is_open(lane[1]) and not lane[1].startswith("node-"):
            await self._bus.kv(subjects.KV_POOLS).put(lane[1], encode(Pool(lane[1], canonical(requires))))
        await declare_lane(self._bus, *lane)
        self._declared[lane] = self._loop.time()

    def wake(self, lane: Lane) -> None:
        """Tell idle nodes that a lane which was quiet has work: a hint, for latency only."""
        now = self._loop.time()
        if now - self._published.get(lane, -QUIET_S) >= QUIET_S:
            self._bus.send(subjects.wake(*lane), b"")
            # The master may have removed the idle lane between our look and our publish; and what we knew of it is
            # dropped when a declaration failed meanwhile.
            if now - self._declared.get(lane, float("-inf")) > DECLARED_FRESH_S:
                again = asyncio.create_task(self._declare_again(lane), name="declare lane again")
                self._background.add(again)
                again.add_done_callback(self._background.discard)
        self._published[lane] = now

    async def _declare_again(self, lane: Lane) -> None:
        try:
            await declare_lane(self._bus, *lane)
            self._declared[lane] = self._loop.time()
            self._bus.send(subjects.wake(*lane), b"")
        except QueztlError as error:
            log.warning("could not declare lane %s again, nodes will be slower to find it: %s", lane, error)
            self._declared.pop(lane, None)

    async def _claim_check(self, task: Task) -> Task:
        if len(task.payload) <= CLAIM_CHECK_BYTES:
            return task
        reference = await self._bus.objects.put(bytes(task.payload), "application/msgpack")
        return msgspec.structs.replace(task, payload=NOTHING, payload_ref=reference)

    async def _schedule(self, task: Task, at: float) -> None:
        await self._later_has_room()
        headers = {
            "Nats-Schedule": f"@at {datetime.fromtimestamp(at, UTC).isoformat().replace('+00:00', 'Z')}",
            "Nats-Schedule-Target": subjects.later_due(task.id),
        }
        await self._bus.store(subjects.later_at(task.id), encode(task), msg_id=task.id, headers=headers, resend=True)

    async def _later_has_room(self) -> None:
        """A stream with schedules can't refuse what is too much (10052), so those who fill it look, now and then.

        Raises: Busy.
        """
        now = self._loop.time()
        if now - self._later_looked_at >= LATER_FRESH_S:
            info = await self._bus.stream_info(subjects.LATER)
            self._later_full = info.size_bytes >= self._bus.config.later_max_bytes
            self._later_looked_at = now
        if self._later_full:
            raise Busy("there is too much delayed work already; try again later", retry_after_s=60.0)

    async def _accept_once(self, prepared: Prepared, key: str) -> Accepted:
        task = prepared.task
        claims = self._bus.kv(subjects.KV_CLAIMS)
        name = hashlib.sha256(f"{task.kind}\0{key}".encode()).hexdigest()
        claim = Claim(task.id, hashlib.sha256(bytes(task.payload)).hexdigest(), task.submitted_at)
        try:
            await claims.create(name, encode(claim))
        except KeyExists:
            return await self._accepted_before(prepared, name, claim)
        try:
            await self.publish(prepared)
        except BusUnavailable:
            # It may have been accepted all the same: the key stands for it, and whoever uses it next looks.
            raise
        except QueztlError:
            # Nothing was accepted: the key must be free for the caller's next try.
            await claims.delete(name)
            raise
        return Accepted(task.id, task.kind)

    async def _accepted_before(self, prepared: Prepared, name: str, claim: Claim) -> Accepted:
        entry = await self._bus.kv(subjects.KV_CLAIMS).get(name)
        if entry is None:
            raise Busy("that idempotency key is being released right now; try again", retry_after_s=1.0)
        earlier = decode_claim(entry.value)
        if earlier.digest != claim.digest:
            raise Conflict(
                f"that idempotency key stands for task {earlier.id}, which has another payload; use another key"
            )
        mend_s = self._bus.config.small_result_ttl_s * CLAIM_MEND_SHARE
        if time() - earlier.at < mend_s and not await self._exists(earlier.id):
            task = msgspec.structs.replace(prepared.task, id=earlier.id)
            await self.publish(Prepared(task, prepared.lane, prepared.delay_s))
        return Accepted(earlier.id, prepared.task.kind, duplicate=True)

    async def _exists(self, task: str) -> bool:
        readers = (records.read_waiting, records.read_end, records.read_state, records.read_delayed)
        for read in readers:
            if await read(self._bus, task) is not None:
                return True
        return False
