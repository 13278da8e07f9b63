"""Submission: from a validated request to a message that the bus holds durably.

The consumer of a lane is declared on first use. A large payload goes into the blob store first. A delayed task becomes
a schedule. An idempotency key is claimed before the task is published; if the claimer crashes in between, the next use
of the key publishes the task.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING

import msgspec

from mesh import decoding, subjects
from mesh.bus import reserved
from mesh.bus.errors import KeyExists, WrongSequence
from mesh.bus.publisher import Settled
from mesh.bus.streams import SUBMIT_WITHIN_S, declare_lane, list_lanes
from mesh.coordination import Pool
from mesh.decoding import readable
from mesh.errors import (
    BadInput,
    BusUnavailable,
    Busy,
    Conflict,
    Fault,
    NotFound,
    QueztlError,
    StoreUnavailable,
    TooMany,
)
from mesh.lanes import Lane, class_of, is_open
from mesh.messages import CLAIM_CHECK_BYTES, NOTHING, Claim, Task, encode
from mesh.scheduling.geo import Point
from mesh.tasks import blob_refs, records
from mesh.tasks.validation import Prepared, prepare
from mesh.views import Accepted, SubmitRequest

if TYPE_CHECKING:
    from mesh.bus.client import Bus

log = logging.getLogger(__name__)

#: A lane into which this client published nothing for this long gets a wake-up hint with the next task, seconds.
QUIET_S = 0.5
#: With a wake-up hint, a lane that was declared longer ago than this is declared again, seconds.
DECLARED_FRESH_S = 5.0
#: The regions of the nodes are read again after this, seconds.
REGIONS_FRESH_S = 30.0
#: The size of the delayed work is read again after this, seconds.
LATER_FRESH_S = 1.0
#: The lanes are listed again after this, when a lane for work with requirements is declared, seconds.
LANES_FRESH_S = 1.0
#: A consumer that was declared longer ago than this may have been removed as idle, seconds.
DECLARE_AGAIN_S = 120.0
#: Beyond this many lanes, those that would be declared again anyway are forgotten.
LANES_REMEMBERED = 1000
#: A claim without a task is the remainder of a crash if it is younger than this share of the shortest lifetime of a
#: result. If it is older, the task may have ended and its record may have expired.
CLAIM_REPAIR_SHARE = 0.9


class Submitter:
    """Publishes tasks under ids `<submitter>-<n>`."""

    def __init__(self, bus: Bus, name: str, refusal: Callable[[], StoreUnavailable | None] = lambda: None) -> None:
        """`refusal()`: why the bus can store nothing now, None when it can."""
        self._bus, self.name, self._refusal = bus, name, refusal
        self._number = 0
        self._declared: dict[Lane, float] = {}
        self._published: dict[Lane, float] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        # After a reconnect the bus may be that of another mesh, into which this one was merged.
        bus.on_back.append(self._declared.clear)
        self.regions: tuple[str, ...] = ()
        """The regions that have nodes, as of `learn_regions`."""
        self.places: dict[str, Point] = {}
        """The positions of those regions, as far as their nodes state them."""
        self._regions_at = float("-inf")
        self._lanes: set[Lane] = set()
        """The lanes for work with requirements, as last read."""
        self._lanes_read_at = float("-inf")
        self._later_full, self._later_read_at = False, float("-inf")

    def next_id(self) -> str:
        """A new task id."""
        self._number += 1
        return subjects.task_id(self.name, self._number)

    def prepare(self, request: SubmitRequest, task: str = "") -> Prepared:
        """Validate a request, under the id `task` or a new one. Raises: UnknownKind, BadInput."""
        return prepare(request, task or self.next_id(), time(), self._bus.config, self.regions, self.places)

    async def learn_regions(self, request: SubmitRequest) -> None:
        """Before `prepare`: read which regions have nodes, if the request has an origin. Raises: BusUnavailable."""
        now = self._loop.time()
        if request.origin and now - self._regions_at > REGIONS_FRESH_S:
            entry = await self._bus.kv(subjects.KV_PLAN).get(subjects.PLAN_KEY)
            plan = readable(decoding.plan, entry)
            most = self._bus.config.limits.regions + 1  # "" among them; a forged plan may name any number
            self.regions, self.places = (plan.regions[:most], plan.places) if plan else ((), {})
            self._regions_at = now

    async def accept(self, request: SubmitRequest) -> Accepted:
        """Validate, claim the idempotency key, publish. When it returns, the bus holds the task durably.

        Raises: UnknownKind, BadInput, Conflict, Busy, TooMany, BusUnavailable, StorageFull.
        """
        await self.learn_regions(request)
        prepared = self.prepare(request)
        self.check_store()
        for blob in prepared.task.blobs:
            try:
                await self._bus.objects.info(blob)
            except NotFound as missing:
                raise BadInput(str(missing), (Fault("payload", f"names blob {blob}, which does not exist"),)) from None
        if not request.idempotency_key:
            await self.publish(prepared)
            return Accepted(prepared.task.id, prepared.task.kind)
        return await self._accept_once(prepared, request.idempotency_key)

    async def publish(self, prepared: Prepared) -> None:
        """Store a validated task durably. Raises: Busy (the queue is full), TooMany, BusUnavailable, StorageFull."""
        self.check_store()
        task = await self._claim_check(prepared.task)
        if task.blobs:
            await blob_refs.add(self._bus, task.blobs, task.id)
        if prepared.delay_s > 0:
            await self._schedule(task, prepared.delay_s)
            return
        await self.ensure_lane(prepared.lane, task.requires)
        await self._store(subjects.lane_subject(*prepared.lane, task.id), task)
        self.wake(prepared.lane)

    async def _store(self, subject: str, task: Task, headers: dict[str, str] | None = None) -> None:
        await self._bus.store(
            subject, encode(task), msg_id=task.id, headers=headers, resend=True, timeout_s=SUBMIT_WITHIN_S
        )

    def check_store(self) -> None:
        """Raises: StoreUnavailable when the bus servers report that they can store nothing now."""
        if (error := self._refusal()) is not None:
            raise error

    def declared(self, lane: Lane) -> bool:
        """Whether the consumer of the lane is known to exist, as `post` requires."""
        return self._loop.time() - self._declared.get(lane, -DECLARE_AGAIN_S) < DECLARE_AGAIN_S

    def post(self, prepared: Prepared, settled: Settled) -> None:
        """`publish` without waiting, for many small tasks: `settled(answer, error)` is called when the bus answers.

        Only for tasks without blobs, delay or large payload, into a lane that is `declared`.
        """
        task = prepared.task
        if (error := self._refusal()) is not None:
            settled(b"", error)
            return
        subject = subjects.lane_subject(*prepared.lane, task.id)
        self._bus.post(subject, encode(task), reserved.with_message_id(task.id), settled)
        self.wake(prepared.lane)

    async def ensure_lane(self, lane: Lane, requires: dict[str, object]) -> None:
        """Declare the consumer of a lane, and the record of its pool, before the first task is published into it.

        Raises: TooMany, when there are as many lanes as there may be; BusUnavailable, ApiError.
        """
        if self.declared(lane):
            return
        if not is_open(lane[1]):
            await self._check_lane_limit(lane)
            if not lane[1].startswith("node-"):
                await self._bus.kv(subjects.KV_POOLS).put(lane[1], encode(Pool(lane[1], class_of(requires))))
        await declare_lane(self._bus, *lane)
        now = self._loop.time()
        if len(self._declared) > LANES_REMEMBERED:
            self._declared = {lane: at for lane, at in self._declared.items() if now - at < DECLARE_AGAIN_S}
            self._published = {lane: at for lane, at in self._published.items() if lane in self._declared}
        self._declared[lane] = now

    async def _check_lane_limit(self, lane: Lane) -> None:
        """The bus refuses all further lanes beyond its own limit: without this one, strange requirements would end up
        stopping work without any."""
        now = self._loop.time()
        if now - self._lanes_read_at >= LANES_FRESH_S:
            self._lanes = {known for known in await list_lanes(self._bus, SUBMIT_WITHIN_S) if not is_open(known[1])}
            self._lanes_read_at = now
        limit = self._bus.config.limits.lanes
        if lane not in self._lanes and len(self._lanes) >= limit:
            raise TooMany(
                f"the mesh has as many lanes for work with requirements as it may have ({limit}); use fewer different "
                "requirements, or try again when some of them have no work any more",
                retry_after_s=30.0,
            )
        self._lanes.add(lane)

    def wake(self, lane: Lane) -> None:
        """Send idle nodes a hint that a quiet lane has work; it only reduces latency."""
        now = self._loop.time()
        if now - self._published.get(lane, -QUIET_S) >= QUIET_S:
            self._bus.send(subjects.wake(*lane), b"")
            # The leader may have removed the idle lane since it was declared. The entry is missing when a declaration
            # has failed meanwhile.
            if now - self._declared.get(lane, float("-inf")) > DECLARED_FRESH_S:
                declaration = asyncio.create_task(self._declare_again(lane), name="declare lane again")
                self._background.add(declaration)
                declaration.add_done_callback(self._background.discard)
        self._published[lane] = now

    async def _declare_again(self, lane: Lane) -> None:
        try:
            await declare_lane(self._bus, *lane)
            self._declared[lane] = self._loop.time()
            self._bus.send(subjects.wake(*lane), b"")
        except QueztlError as error:
            log.warning("could not declare lane %s again, nodes may take longer to find it: %s", lane, error)
            self._declared.pop(lane, None)

    async def _claim_check(self, task: Task) -> Task:
        if len(task.payload) <= CLAIM_CHECK_BYTES:
            return task
        reference = await self._bus.objects.put(bytes(task.payload), "application/msgpack")
        return msgspec.structs.replace(task, payload=NOTHING, payload_ref=reference)

    async def _schedule(self, task: Task, delay_s: float) -> None:
        await self._check_later_limit()
        # The server compares the schedule with its own clock.
        at = await self._bus.clock(subjects.LATER).latest(SUBMIT_WITHIN_S) + delay_s
        headers = reserved.scheduled(at, subjects.later_due(task.id))
        await self._store(subjects.later_at(task.id), task, headers)

    async def _check_later_limit(self) -> None:
        """A stream with schedules can't refuse messages when it is full (10052), so submitters check its size.

        Raises: Busy.
        """
        now = self._loop.time()
        if now - self._later_read_at >= LATER_FRESH_S:
            info = await self._bus.stream_info(subjects.LATER, timeout_s=SUBMIT_WITHIN_S)
            self._later_full = info.size_bytes >= self._bus.config.later_max_bytes
            self._later_read_at = now
        if self._later_full:
            raise Busy("the limit of delayed work is reached; try again later", retry_after_s=60.0)

    async def _accept_once(self, prepared: Prepared, key: str) -> Accepted:
        task = prepared.task
        claims = self._bus.kv(subjects.KV_CLAIMS)
        name = hashlib.sha256(key.encode()).hexdigest()
        claim = Claim(task.id, hashlib.sha256(bytes(task.payload)).hexdigest(), kind=task.kind)
        try:
            await claims.create(name, encode(claim))
        except KeyExists:
            return await self._accepted_earlier(prepared, name, claim)
        try:
            await self.publish(prepared)
        except BusUnavailable:
            # The task may have been stored all the same. The key stays claimed; its next use checks.
            raise
        except QueztlError:
            # Nothing was stored: release the key for the caller's next attempt.
            await claims.delete(name)
            raise
        return Accepted(task.id, task.kind)

    async def _accepted_earlier(self, prepared: Prepared, name: str, claim: Claim) -> Accepted:
        entry = await self._bus.kv(subjects.KV_CLAIMS).get(name)
        if entry is None:
            raise Busy("the idempotency key is being released; try again", retry_after_s=1.0)
        earlier = readable(decoding.claim, entry)
        if earlier is None:  # it stands for nothing: this request takes its place
            try:
                await self._bus.kv(subjects.KV_CLAIMS).update(name, encode(claim), entry.revision)
            except WrongSequence:
                raise Busy("another request claims the idempotency key; try again", retry_after_s=1.0) from None
            await self.publish(prepared)
            return Accepted(claim.id, prepared.task.kind)
        if (earlier.kind, earlier.digest) != (claim.kind, claim.digest):
            differs = "another payload" if earlier.kind == claim.kind else f"another kind, {earlier.kind}"
            raise Conflict(f"the idempotency key stands for task {earlier.id}, which has {differs}; use another key")
        repair_s = self._bus.config.small_result_ttl_s * CLAIM_REPAIR_SHARE
        claims_now = await self._bus.clock(f"KV_{subjects.KV_CLAIMS}").earliest()
        age_s = earlier.age_s + max(0.0, claims_now - entry.stored_at)
        if age_s < repair_s and not await self._exists(earlier.id):
            task = msgspec.structs.replace(prepared.task, id=earlier.id)
            await self.publish(Prepared(task, prepared.lane, prepared.delay_s))
        return Accepted(earlier.id, prepared.task.kind, duplicate=True)

    async def _exists(self, task: str) -> bool:
        readers = (records.read_waiting, records.read_end, records.read_state, records.read_delayed)
        for read in readers:
            if await read(self._bus, task) is not None:
                return True
        return False
