"""One running node: what is started, in which order, and how it leaves. The table of contents of a node.

Everything is made here and handed what it needs; no part looks for another one. The order of `Node.start` is the
order of dependence, and `Node.stop` is its reverse: no new work, let what runs end, say goodbye, close.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import msgspec

from mesh import subjects
from mesh.bus.blob_cache import BlobCache
from mesh.bus.client import Bus, Message, Subscription
from mesh.client import Mesh
from mesh.cluster.controller import ClusterController
from mesh.coordination import MergeOrder, Plan, decode_plan
from mesh.discovery.announcement import Announcement
from mesh.discovery.identity import DataDir, open_data_dir
from mesh.discovery.interfaces import usable_addresses
from mesh.discovery.mdns import Discovery
from mesh.errors import CannotStart
from mesh.kinds.table import KINDS
from mesh.leader import journal
from mesh.leader.election import Election
from mesh.leader.garbage_collection import GarbageCollector
from mesh.leader.leader import Leader
from mesh.membership import connections
from mesh.membership.registry import Registry
from mesh.merge.detector import DuplicateMeshDetector
from mesh.messages import Capabilities, encode
from mesh.supervision import Service, run_services
from node.benchmarking import Benchmarking
from node.config import NodeConfig
from node.executor.executor import Executor
from node.heartbeat import HeartbeatPublisher
from node.identity import calibration, capabilities, record
from node.identity.calibrator import Calibrator
from node.identity.record import version
from node.identity.service_info import answer_service_requests
from node.lifecycle import draining, joining, merge_follow
from node.lifecycle.bus_host import BusHost
from node.lifecycle.managed import Managed
from node.wiring import api
from node.wiring.scaler import Capacity
from node.wiring.services import parts
from node.work.admission import Admission
from node.work.checkpoints import Checkpoints
from node.work.completion import Completion
from node.work.deliveries import Deliveries
from node.work.ingress import Ingress
from node.work.puller import Puller

log = logging.getLogger(__name__)
#: How long work that runs may take to end once the node was told to stop.
DRAIN_S = 30.0


class Node:
    """One node of a mesh, in this process."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.stop_asked = asyncio.Event()
        self.drain_s = DRAIN_S
        self.moves_to: MergeOrder | None = None
        """The mesh that this node's goes into: when the node has stopped, it is started again there."""
        self._closing = asyncio.Event()
        self._held = asyncio.Event()
        self._plan = Plan(fence=0, made_at=0.0)
        self._subscriptions: list[Subscription] = []
        self._services: asyncio.Task[None] | None = None

    # --- up -----------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Join (or found) the mesh and begin to work. Raises: CannotStart; then nothing is left running."""
        try:
            await self._start()
        except BaseException:
            await self._tear_down()
            raise

    async def _start(self) -> None:
        config = self.config
        self.data: DataDir = open_data_dir(config.data)
        choice = usable_addresses(config.interface)
        if not choice.addresses:
            raise CannotStart(choice.reason)
        self.addresses = choice.addresses
        self.notices = [choice.reason] if choice.reason else []
        # The port is taken before anything else: a node without its bridge would be half a node.
        self.bridge = await self._open_bridge()
        self.discovery = await self._open_discovery()
        if self.discovery.trouble:
            self.notices.append(self.discovery.trouble)
        probing = asyncio.create_task(self._probe(), name="capability probes")
        try:
            self.joined = await joining.join(
                config,
                self.data,
                self.discovery,
                choice.addresses,
                api=self.bridge.url,
                version=version(),
                on_event=self._on_bus_event,
                say=lambda sentence: log.info("%s", sentence),
            )
        except BaseException:
            # Threads can't be stopped, and they write into the data folder, which may go with this node.
            await asyncio.gather(probing, return_exceptions=True)
            raise
        self.bus: Bus = self.joined.bus
        self.bus.objects.blob_cache = BlobCache(self.data.path / "blob-cache")
        self.capabilities = await probing
        await self._build()
        await self._announce()

    async def _build(self) -> None:
        config, bus, data = self.config, self.bus, self.data
        me, incarnation = data.node_id, data.incarnation
        self.slots = config.slots or self.capabilities.cores
        self.bus_host = BusHost(
            bus, joining.bus_settings(config, data, self.joined.mesh, self.addresses), data.bus_folder,
            self.joined.server, self.joined.urls, on_event=self._on_bus_event, on_urls=self._on_urls,
        )  # fmt: skip
        self._build_measuring()
        self.record = record.record_of(self)
        self.registry = Registry(bus, me, config.mesh_config)
        self.mesh = Mesh(config=config.mesh_config, bus=bus, members=self.registry.members)
        self.deliveries = Deliveries(bus, me, incarnation)
        self.checkpoints = Checkpoints(bus, me, self.deliveries)
        self.admission = Admission(
            bus, node=me, incarnation=incarnation, slots=self.slots, spool=data.path / "spool",
            deliveries=self.deliveries, checkpoints=self.checkpoints, is_alive=self.registry.is_alive,
            changed=self._changed,
        )  # fmt: skip
        self.completion = Completion(
            bus, node=me, incarnation=incarnation, deliveries=self.deliveries, checkpoints=self.checkpoints,
            on_ended=self.admission.on_ended, changed=self._changed,
        )  # fmt: skip
        self.executor = self._make_executor()
        self.admission.wire(self.executor, self.completion)
        self.checkpoints.told = self.executor.tell_kept
        self.puller = Puller(bus, lambda: self.record, self.admission.load, self._rank, self._on_delivery)
        self.heartbeat = HeartbeatPublisher(
            bus, node=me, incarnation=incarnation, slots=self.slots, admission=self.admission,
            completion=self.completion, deliveries=self.deliveries,
        )  # fmt: skip
        self.election = Election(
            bus, me, incarnation, config.mesh_config, self.registry, is_connected=self._is_connected
        )
        resources = {name: spec.resources for name, spec in KINDS.items()}
        keeping = GarbageCollector(bus, lambda: self.election.fence, config.mesh_config)
        self.cluster = ClusterController(bus, self.election, self.registry, config.mesh_config, self._open_system)
        self.duplicate_mesh_detector = detector = DuplicateMeshDetector(
            bus, me, self.election, self._peers, joining.connector(config, me), self.registry.members
        )
        self.capacity, self.managed = Capacity(self), Managed(self)
        self.leader = Leader(
            bus, me, self.election, self.registry, config.mesh_config, resources, open_system=self._open_system,
            services=(self.cluster.run, keeping.lanes, keeping.blobs, detector.run, self.capacity.controller.run),
            more_alarms=lambda: detector.alarms,
        )  # fmt: skip
        await asyncio.gather(self.registry.start(), self.mesh.connect(), self.executor.start(), self.bus_host.start())
        self.benchmarking = Benchmarking(bus, me, data.path, nodes=self.registry.view, urls=lambda: self.bus_host.urls)
        self.ingress = Ingress(bus, self.mesh.submitter, self.joined.epoch, me)
        self._subscriptions = [
            await bus.subscribe(subjects.ALL_CANCELS, self._on_cancel),
            # A plan says itself which one is newer: nobody need read what it has just heard.
            await bus.kv(subjects.KV_PLAN).watch_writes(lambda _, value: self._take_plan(value)),
            *await answer_service_requests(bus, self),
            *await self.managed.listen(),
        ]
        bus.on_back.append(self._on_back)
        await self._read_plan()

    def _build_measuring(self) -> None:
        have, slots, folder = self.capabilities, self.slots, self.data.path
        known = calibration.known(KINDS.values(), have, slots, version(), folder)
        self.calibrator = Calibrator(
            calibration.measurable(KINDS.values(), have),
            lambda spec: calibration.circumstances(spec, have, slots, version()),
            known, slots=slots, folder=folder, idle_s=self.config.measure_after_s, held=self._held,
            publish=self._put_speeds,
        )  # fmt: skip
        self.capabilities = msgspec.structs.replace(have, speeds=dict(known))

    async def _announce(self) -> None:
        await self._put_record()
        self.heartbeat.publish()
        # It beats from here on: what follows may take long where many nodes start at once.
        # Not ended when the node is told to stop: while it drains it must beat, or its work is given to others.
        self._services = asyncio.create_task(run_services(self._parts(), self._closing), name="services")
        # Else its own API would say for a moment that there is no such node, and its master that nobody can work.
        await self.registry.catch_up()
        await self.puller.start()
        self.bridge.attach(self)
        await self.discovery.announce(record.announcement_of(self))
        await journal.emit(self.bus, "join", {"name": self.record.name}, self.data.node_id, 0)

    # --- what a swarm of nodes in one process has not (bench/swarm/node.py) --------------------------
    def _parts(self) -> list[Service]:
        return parts(self, self._held)

    async def _open_bridge(self) -> api.Bridge:
        return await api.listen(self.config, self.addresses, version())

    async def _open_discovery(self) -> Discovery:
        await (discovery := Discovery(self.addresses)).start()
        return discovery

    def _probe(self) -> Coroutine[Any, Any, Capabilities]:
        return capabilities.probe(self.data.path)

    def _make_executor(self) -> Executor:
        return Executor(
            slots=self.slots,
            folder=self.data.path / "work",
            fault_kinds=self.config.fault_kinds,
            grants=self.config.grants,
            on_started=self.admission.on_started,
            on_called_back=self.admission.on_called_back,
            on_finished=self.completion.on_finished,
            on_progress=self.completion.on_progress,
            on_checkpoint=self.checkpoints.take,
        )

    # --- down ---------------------------------------------------------------------------------------
    async def serve(self) -> None:
        """Until `stop_asked` is set, or a part the node can't go on without fails (raises ServiceFailed)."""
        assert self._services is not None
        stopped = asyncio.create_task(self.stop_asked.wait(), name="stop asked")
        try:
            await asyncio.wait({stopped, self._services}, return_when=asyncio.FIRST_COMPLETED)
            if self._services.done():
                self._services.result()
        finally:
            stopped.cancel()

    async def stop(self, drain_s: float | None = None) -> None:
        """Leave in order: take nothing new, let what runs end (for `drain_s`, else as set), hand over, say goodbye."""
        await self.capacity.send_away_before_the_end()
        self.heartbeat.state = "draining"
        self.puller.close_ingress()
        if self.bus.connected:
            self.heartbeat.publish()
        await draining.drain(self, self.drain_s if drain_s is None else drain_s)
        if self.moves_to is None and self.bus.connected and record.has_successor(self):
            await self.bus_host.leave(self.config.mesh_config.bus_leave_s)
        await draining.say_goodbye(self)
        await self._tear_down()

    async def abandon(self) -> None:
        """Leave at once: what runs here is given to other nodes when they notice."""
        await self._tear_down()

    async def _tear_down(self) -> None:
        """Close whatever was opened, in reverse."""
        self._closing.set()
        self.stop_asked.set()
        if self._services is not None:
            await asyncio.gather(self._services, return_exceptions=True)
        await draining.close_all(self)
        if "bus" in self.__dict__ and self.bus.objects.blob_cache is not None:
            self.bus.objects.blob_cache.close()
        if "data" in self.__dict__:
            if self.moves_to is not None:
                await asyncio.to_thread(merge_follow.adopt, self.data, self.moves_to, self.joined.mesh.name)
            self.data.close()

    # --- what the parts ask of each other -----------------------------------------------------------
    def _on_delivery(self, message: Message, stream_seq: int, delivered: int) -> None:
        self.admission.on_message(message, stream_seq, delivered)
        if not self._held.is_set():
            self._held.set()

    def _changed(self) -> None:
        self.puller.plan_soon()

    def _rank(self, kind: str) -> int:
        return self._plan.ranks.get(kind, {}).get(self.data.node_id, 0)

    def _on_cancel(self, message: Message) -> None:
        self.admission.cancel(message.subject.partition(".")[2])

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _read_plan(self) -> None:
        entry = await self.bus.kv(subjects.KV_PLAN).get(subjects.PLAN_KEY)
        if entry is not None:
            self._take_plan(entry.value)

    def _take_plan(self, value: bytes) -> None:
        try:
            plan = decode_plan(value)
        except msgspec.MsgspecError as error:
            log.warning("the placement plan can't be read and is ignored: %s", error)
            return
        if (plan.fence, plan.made_at) >= (self._plan.fence, self._plan.made_at):
            self._plan = plan

    async def _on_back(self) -> None:
        """The bus is back: its servers may have changed, and this connection has another number."""
        self.bus_host.look()
        await self._put_record()
        await self._read_plan()

    def _on_urls(self, urls: tuple[str, ...]) -> None:
        """The bus has other servers now: remembered, announced, and told."""
        self.data.remember_mesh(self.joined.mesh, urls)
        self._spawn(self.tell_where_it_is(), "announce bus servers")

    async def tell_where_it_is(self) -> None:
        """This node's addresses, or the bus servers', are others now. Raises: BusUnavailable."""
        await self.discovery.announce(record.announcement_of(self))
        await self._put_record()

    async def _put_record(self) -> None:
        self.record = record.record_of(self)
        await self.bus.kv(subjects.KV_NODES).put(self.record.id, encode(self.record))

    async def _put_speeds(self) -> None:
        self.capabilities = msgspec.structs.replace(self.capabilities, speeds=dict(self.calibrator.seconds))
        await self._put_record()

    async def _open_system(self) -> Bus:
        name = f"system {self.data.node_id}"
        return await joining.open_system(self.bus_host.urls, self.joined.mesh.id, name, self.config)

    def _peers(self) -> tuple[Announcement, ...]:
        return self.discovery.peers()

    async def _is_connected(self, node: str, incarnation: str) -> bool:
        return await connections.is_connected(self._open_system, node, incarnation)

    def _on_bus_event(self, kind: str, facts: dict[str, Any]) -> None:
        log.info("bus: %s %s", kind.replace("_", " "), facts)
