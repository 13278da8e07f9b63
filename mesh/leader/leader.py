"""The services of the leader: they run while this node is leader and stop the moment it is not. Tasks run without it.

They are the heartbeat digest, the placement plan, reclaiming the deliveries of dead nodes, the journal, removing the
records of nodes that are gone, load samples and alarms, and those passed in (capacity, merges, the cluster). Everything
the leader writes carries its fence.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mesh import coordination, decoding, messages, subjects
from mesh.bus import streams
from mesh.bus.errors import WrongSequence
from mesh.config import MeshConfig
from mesh.decoding import readable
from mesh.errors import QueztlError
from mesh.kinds.base import Resources
from mesh.leader import alarms, journal, metrics
from mesh.leader.reclaimer import Reclaimer
from mesh.membership import failure_detector
from mesh.membership.heartbeat_relay import digest_every_s
from mesh.scheduling import geo, placement
from mesh.supervision import every, wait_until_set

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.leader.election import Election
    from mesh.membership.connections import OpenSystem
    from mesh.membership.registry import Registry

log = logging.getLogger(__name__)

#: Called with the fence when this node becomes leader, and cancelled when it no longer is.
Service = Callable[[int], Awaitable[None]]
#: What a plan says: the ranks, the regions that have nodes, and where these are.
Placed = tuple[placement.Ranks, tuple[str, ...], dict[str, geo.Point]]

PLACE_EVERY_S = 1.0
#: The shortest time between two plans, seconds: each is sent to every node, and many nodes may join at once.
PLACE_AGAIN_S = 0.2
SWEEP_EVERY_S = 2.0
SAMPLE_EVERY_S = 60.0
ALARMS_EVERY_S = 15.0
BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0)


class Leader:
    """Runs the services in each term of this node. `run()` until cancelled."""

    def __init__(
        self,
        bus: Bus,
        me: str,
        election: Election,
        registry: Registry,
        config: MeshConfig,
        resources: Mapping[str, Resources],
        *,
        open_system: OpenSystem | None = None,
        services: Sequence[Service] = (),
        more_alarms: Callable[[], Mapping[str, str]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resources`: kind -> what one of its tasks needs; `open_system`: see `mesh/membership/connections.py`."""
        self._bus, self._me, self._election, self._registry = bus, me, election, registry
        self._config, self._resources, self._clock = config, resources, clock
        self._term_changed = asyncio.Event()
        self._alarms: dict[str, str] = {}
        self._plan_written = b""
        """The plan that this node wrote last, encoded."""
        self._more_alarms = more_alarms
        self._reclaimer = Reclaimer(bus, me, election, registry, open_system, clock)
        self._services: tuple[Service, ...] = (
            self._publish_digest,
            self._reclaimer.run,
            self._place,
            self._journal,
            self._sweep,
            self._sample,
            self._watch_limits,
            self._publish_alarms,
            *services,
        )
        election.on_elected.append(lambda _: self._term_changed.set())
        election.on_lost.append(self._term_changed.set)

    @property
    def alarms(self) -> tuple[str, ...]:
        """The current alarms, for people; none while another node is leader."""
        return (*self._alarms.values(), *self._more_alarms().values()) if self._election.is_leader else ()

    async def run(self) -> None:
        """Serve every term that this node wins."""
        while True:
            fence = self._election.fence
            self._term_changed.clear()
            if fence:
                await self._serve(fence)
            else:
                await self._term_changed.wait()

    async def _serve(self, fence: int) -> None:
        tasks = [
            asyncio.create_task(self._supervise(service, fence), name=f"leader {service.__qualname__}")
            for service in self._services
        ]
        try:
            await self._term_changed.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._alarms = {}

    async def _supervise(self, service: Service, fence: int) -> None:
        """Run a service, and restart it with a growing back-off when it fails; the other services go on."""
        for failures in range(1_000_000):
            try:
                return await service(fence)
            except QueztlError as error:
                log.warning("%s: %s", service.__qualname__, error.message)
            except Exception:
                log.exception("%s failed and is restarted", service.__qualname__)
            await asyncio.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])

    # --- the services -------------------------------------------------------------------------------
    async def _publish_digest(self, fence: int) -> None:
        """Receive the heartbeats of all nodes and republish them as digests."""
        heartbeat_relay = self._registry.heartbeat_relay
        try:
            await heartbeat_relay.lead(True)
            async for _ in every(digest_every_s(self._config), jitter=0.0):
                if self._election.fence == fence:
                    heartbeat_relay.publish_digest(self._me, fence, self._registry.judged())
        finally:
            await heartbeat_relay.lead(False)

    async def _place(self, fence: int) -> None:
        """Keep the placement plan up to date; never overwrites the plan of a later leader."""
        kv, memory = self._bus.kv(subjects.KV_PLAN), placement.Memory()
        written: Placed | None = None
        changed = asyncio.Event()
        self._plan_written = b""

        def on_write(_: str, value: bytes) -> None:
            nonlocal written
            if value != self._plan_written:  # forged, or refused because it was written by an earlier leader
                written = None
                changed.set()

        unlisten = self._registry.listen(lambda *_: changed.set())
        watch = await kv.watch_writes(on_write)
        try:
            while True:
                changed.clear()
                members = self._registry.members()
                ranks, memory = placement.ranks(members, self._resources, memory, self._clock())
                # Each region has lanes of its own, and the bus refuses all lanes beyond a number.
                regions = placement.regions(members, self._config.limits.regions)
                current = ranks, regions, geo.places(members)
                if current != written and self._election.fence == fence:
                    written = current
                    try:
                        if not await self._write_plan(current, fence):
                            return
                        await asyncio.sleep(PLACE_AGAIN_S)
                    except WrongSequence:
                        written = None
                        log.info("another leader wrote the plan; reading it again")
                await wait_until_set(changed, PLACE_EVERY_S)
        finally:
            unlisten()
            await watch.close()

    async def _write_plan(self, current: Placed, fence: int) -> bool:
        """Whether no later leader has written a plan. Raises: WrongSequence, BusUnavailable."""
        kv = self._bus.kv(subjects.KV_PLAN)
        entry = await kv.get(subjects.PLAN_KEY)
        earlier, revision = readable(decoding.plan, entry), entry.revision if entry else 0
        if earlier is not None and earlier.fence > fence:
            if await self._election.confirm() != fence:
                return False
            log.warning("the placement plan is forged (no leader has the fence %d) and is replaced", earlier.fence)
        ranks, regions, places = current
        plan = coordination.Plan(
            fence=fence, made_at=time.time(), number=revision, ranks=ranks, regions=regions, places=places
        )
        self._plan_written = messages.encode(plan)
        await kv.update(subjects.PLAN_KEY, self._plan_written, last=revision)
        return True

    async def _journal(self, fence: int) -> None:
        """Record joins, leaves and deaths in the journal."""
        events: asyncio.Queue[tuple[str, str, dict[str, str]]] = asyncio.Queue()

        def changed(node: str, before: str, after: str) -> None:
            if type_ := journal.of_change(before, after):
                detail = {"was": before}
                if type_ == journal.NODE_GONE:
                    # Evaluated now: the death notice that this leader sends next changes the cause.
                    detail["why"] = failure_detector.cause(self._registry.seen()[node], self._config, self._clock())
                events.put_nowait((node, type_, detail))

        unlisten = self._registry.listen(changed)
        try:
            while True:
                node, type_, detail = await events.get()
                # Read the lease again: a partitioned leader that was replaced must not write to the journal.
                if await self._election.confirm() == fence:
                    await journal.emit(self._bus, type_, detail, node=node, fence=fence)
        finally:
            unlisten()

    async def _sweep(self, fence: int) -> None:
        """Delete the records of nodes that have left, that are gone for an hour, or never came after registering."""
        kv, since = self._bus.kv(subjects.KV_NODES), dict[str, float]()
        while True:
            states = {member.record.id: member.state for member in self._registry.members()}
            nodes, since = failure_detector.overdue(states, since, self._clock())
            for node in nodes:
                if self._election.fence != fence:
                    break
                try:
                    await kv.delete(node, last=self._registry.revision_of(node))
                except WrongSequence:
                    continue  # the node came back and wrote a new record
                await journal.emit(self._bus, journal.NODE_FORGOTTEN, {}, node=node, fence=fence)
            await asyncio.sleep(SWEEP_EVERY_S)

    async def _sample(self, fence: int) -> None:
        """Store one load sample per kind, region and minute."""
        memory, clock = metrics.Memory(), self._bus.clock(subjects.METRICS)
        while True:
            lanes = await streams.list_every_lane(self._bus)
            samples, memory = metrics.sample(lanes, self._registry.members(), memory, await clock.earliest())
            for sample in samples:
                if self._election.fence == fence:
                    subject = subjects.metric(sample["kind"], sample["region"])
                    await self._bus.store(subject, messages.encode(sample | {"fence": fence}))
            await asyncio.sleep(SAMPLE_EVERY_S)

    async def _watch_limits(self, fence: int) -> None:
        """Evaluate the alarms periodically; each is logged and recorded once, when it is raised."""
        while True:
            lanes, usages = await asyncio.gather(streams.list_lanes(self._bus), streams.list_usage(self._bus))
            found = alarms.evaluate(alarms.levels(lanes, self._registry.members()), usages, self._config)
            for name in alarms.new_alarms(self._alarms, found):
                log.warning("alarm: %s", found[name])
                await journal.emit(self._bus, journal.ALARM, {"name": name, "says": found[name]}, fence=fence)
            self._alarms = found
            await asyncio.sleep(ALARMS_EVERY_S)

    async def _publish_alarms(self, fence: int) -> None:
        """Publish the alarms in KV `mesh`, where every node reads them."""
        kv = self._bus.kv(subjects.KV_MESH)
        published: tuple[str, ...] | None = None
        while True:
            if self.alarms != published and self._election.fence == fence:
                published = self.alarms
                await kv.put(subjects.ALARMS_KEY, messages.encode(list(published)))
            await asyncio.sleep(PLACE_EVERY_S)
