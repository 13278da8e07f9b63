"""One running node: which parts it has, in which order they start, and how they stop.

`Node` makes every part and passes it what it needs; no part looks for another one. `Node.start` starts the parts in
order of dependence, and `Node.stop` reverses it: take no new tasks, let running ones end, say goodbye, close.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from mesh import data_folder, subjects
from mesh.bus.blob_cache import BlobCache
from mesh.bus.client import Message
from mesh.client import Mesh
from mesh.discovery.identity import DataDir, open_data_dir
from mesh.discovery.interfaces import usable_addresses
from mesh.discovery.mdns import Discovery
from mesh.errors import CannotStart, QueztlError
from mesh.leader import journal
from mesh.membership.registry import Registry
from mesh.messages import Capabilities, encode
from mesh.supervision import Service, run_services
from node.benchmarking import Benchmarking
from node.config import NodeConfig
from node.context import NodeContext, Shutdown
from node.executor.executor import Executor
from node.heartbeat import HeartbeatPublisher
from node.identity import capabilities, record
from node.identity.banner import banner
from node.identity.calibrator import calibrator_of
from node.identity.publishing import IdentityPublisher
from node.identity.service_info import answer_service_requests
from node.lifecycle import connecting, draining, joining, merge_follow
from node.lifecycle.bus_host import BusHost, has_successor
from node.lifecycle.managed import ManagedNode
from node.lifecycle.network_change import NetworkWatcher
from node.lifecycle.twins import TwinWatch
from node.version import version
from node.wiring import api
from node.wiring.leadership import Leadership
from node.work.admission import Admission
from node.work.checkpoints import Checkpoints
from node.work.completion import Completion
from node.work.deliveries import Deliveries
from node.work.ingress import Ingress
from node.work.other_nodes import OtherNodes
from node.work.placement_plan import PlacementPlan
from node.work.puller import Puller

log = logging.getLogger(__name__)


class Node:
    """One node of a mesh, in this process."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.shutdown = Shutdown()
        self._closing, self._held = asyncio.Event(), asyncio.Event()
        self._opened = contextlib.AsyncExitStack()
        self._notices: list[str] = []
        self._services: asyncio.Task[None] | None = None

    # --- start --------------------------------------------------------------------------------------
    async def start(self) -> None:
        """Join (or create) the mesh and begin to work. Raises: CannotStart; then nothing is left running."""
        try:
            await self._join()
            await self._build()
            await self._announce()
        except BaseException:
            await self._tear_down()
            raise

    async def _join(self) -> None:
        config = self.config
        data = open_data_dir(config.data)
        self._opened.callback(data.close)
        self._opened.push_async_callback(self._adopt_merged_mesh, data)
        choice = usable_addresses(config.interface)
        if not choice.addresses:
            raise CannotStart(choice.reason)
        # The API port is taken before anything else starts: without it the node can't be used.
        self.bridge = await self._open_bridge(choice.addresses)
        self._on_close("REST bridge", self.bridge.close)
        discovery = await self._open_discovery(choice.addresses)
        self._on_close("mDNS", discovery.stop)
        self._notices = [sentence for sentence in (choice.reason, discovery.trouble) if sentence]
        probing = asyncio.create_task(self._probe(data), name="capability probes")
        try:
            joined = self.joined = await joining.join(
                config, data, discovery, choice.addresses, api=self.bridge.url, version=version(),
                on_event=self._on_bus_event, report=lambda sentence: log.info("%s", sentence), show=self.bridge.show,
            )  # fmt: skip
        except BaseException:
            # Threads can't be stopped, and they write into the data directory, which may be deleted after this.
            await asyncio.gather(probing, return_exceptions=True)
            raise
        bus = joined.bus
        bus.objects.blob_cache = cache = BlobCache(data.path / data_folder.BLOB_CACHE)
        self._opened.callback(cache.close)
        settings = connecting.bus_settings(config, data, joined.mesh, choice.addresses)
        self.bus_host = BusHost(
            bus, settings, data.bus_folder, joined.server, joined.urls, record=joined.record, join=config.join,
            on_event=self._on_bus_event, on_urls=self._on_urls,
        )  # fmt: skip
        self._on_close("bus server", self.bus_host.close)
        self._on_close("bus connection", bus.close)
        probed = await probing
        self.context = NodeContext(
            config, data, self.bridge.url, bus, joined.mesh, config.slots or probed.cores, probed,
            choice.addresses, discovery, self.shutdown,
        )  # fmt: skip

    async def _build(self) -> None:
        context, bus, mesh_config = self.context, self.context.bus, self.config.mesh_config
        self.calibrator = calibrator_of(context, self._held, lambda: self.identity.speeds(self.calibrator.seconds))
        self.identity = IdentityPublisher(context, lambda: self.bus_host.location, self._publish_record)
        context.capabilities = msgspec.structs.replace(context.capabilities, speeds=dict(self.calibrator.seconds))
        context.record = record.record_of(context, self.bus_host.server is not None)
        self.registry = Registry(bus, context.node_id, mesh_config)
        self.mesh = Mesh(config=mesh_config, bus=bus, members=self.registry.members)
        self._build_work()
        led = Leadership(context, self.registry, self.bus_host)
        self.election, self.leader, self.scaler = led.election, led.leader, led.scaler
        self.managed, self.twin_watch = ManagedNode(context), TwinWatch(context, self._publish_record)
        self.heartbeat.twin = lambda: self.twin_watch.twin
        self._on_close("registry", self.registry.close)
        self._on_close("client", self.mesh.close)
        self._on_close("executor", lambda: self.executor.stop(0.0))
        started = await asyncio.gather(
            self.registry.start(), self.mesh.connect(), self.executor.start(), self.bus_host.start(),
            return_exceptions=True,
        )  # fmt: skip
        for error in filter(None, started):
            raise error
        self.benchmarking = Benchmarking(
            bus, context.node_id, context.data.path, nodes=self.registry.view, urls=lambda: self.bus_host.urls
        )
        self.ingress = Ingress(bus, self.mesh.submitter, self.joined.record.epoch, context.node_id)
        await bus.subscribe(subjects.ALL_CANCELS, self._on_cancel)
        await answer_service_requests(context, self.executor.rates)
        await self.managed.listen()
        await self.twin_watch.listen(self.registry)
        bus.on_back.append(self._on_reconnect)
        await self.placement_plan.start()

    def _build_work(self) -> None:
        """The path of a task through this node."""
        context, bus = self.context, self.context.bus
        node, incarnation, slots = context.node_id, context.data.incarnation, context.slots
        self.deliveries, others = Deliveries(bus, node, incarnation), OtherNodes(node, self.registry.members)
        self.checkpoints, self.placement_plan = Checkpoints(bus, node, self.deliveries), PlacementPlan(bus, node)
        self.admission = Admission(
            bus, node=node, incarnation=incarnation, slots=slots, spool=context.data.path / data_folder.SPOOL,
            deliveries=self.deliveries, checkpoints=self.checkpoints, is_alive=self.registry.is_alive,
            changed=self._plan_pulls_soon, lacks=context.lacks, others_start=others.can_start,
        )  # fmt: skip
        self.completion = Completion(
            bus, node=node, incarnation=incarnation, deliveries=self.deliveries, checkpoints=self.checkpoints,
            on_ended=self.admission.on_ended, changed=self._plan_pulls_soon, members=self.registry.members,
        )  # fmt: skip
        self.executor = self._make_executor()
        self.admission.wire(self.executor, self.completion)
        self.checkpoints.report = self.executor.report_checkpoint
        self.puller = Puller(
            bus, lambda: context.record, self.admission.load, self.placement_plan.rank, self._on_delivery, others.take
        )
        self.admission.avoid = self.puller.avoid
        self.heartbeat = HeartbeatPublisher(
            bus, node=node, incarnation=incarnation, slots=slots, admission=self.admission,
            completion=self.completion, deliveries=self.deliveries,
        )  # fmt: skip

    async def _announce(self) -> None:
        context = self.context
        self.twin_watch.ticket = await self._publish_record()
        self.heartbeat.publish()
        # The services start now: what follows may take long when many nodes start at once. A request to stop does not
        # end them: without its heartbeat a draining node would lose its tasks to other nodes.
        self._services = asyncio.create_task(run_services(self._service_table(), self._closing), name="services")
        # Otherwise this node's API would lack it for a moment, and its leader would see no node that can run tasks.
        await self.registry.catch_up()
        self._on_close("puller", self.puller.stop)
        await self.puller.start()
        self._on_close("benchmark run", self.benchmarking.close)
        # What others see of this node is closed before the parts behind it.
        self._on_close("mDNS", self._close_discovery)
        self._on_close("REST bridge", self.bridge.close)
        answering = api.AnsweringParts(
            context, self.mesh, self.registry, self.election, self.leader, self.bus_host, self.heartbeat,
            self.benchmarking, self.scaler.service,
        )  # fmt: skip
        self.bridge.attach(answering)
        await self.identity.announce()
        await journal.emit(context.bus, "join", {"name": context.record.name}, context.node_id, 0)

    def banner(self) -> str:
        """What `python -m node` prints when the node has started."""
        joined, colour = self.joined, sys.stdout.isatty()
        return banner(record.banner_facts(self.context, joined.how, joined.urls, self._notices, colour))

    # --- what a swarm node replaces (bench/swarm/node.py) --------------------------------------------
    def _service_table(self) -> list[Service]:
        """The services of the node. A node without a heartbeat stops; any other service is started again."""
        context, bus_host = self.context, self.bus_host
        network_watcher = NetworkWatcher(context, bus_host, self.identity.location)
        merge_follower = merge_follow.MergeFollower(
            context, drain=self._drain, resume=self.puller.pull_again, hosts_bus=lambda: bus_host.server is not None
        )
        return [
            Service("heartbeat", self.heartbeat.run, "stop_node"),
            Service("deliveries", lambda: self.heartbeat.keep_deliveries(self._held), "stop_node"),
            Service("registry", self.registry.run),
            Service("ingress", self.ingress.run),
            Service("election", self.election.run),
            Service("leader", self.leader.run),
            Service("bus host", bus_host.run),
            Service("network watcher", network_watcher.run),
            Service("merge follower", merge_follower.run),
            Service("calibrator", self.calibrator.run),
            Service("dead-man switch", self.managed.run),
            Service("twin watch", self.twin_watch.run),
            Service("capacity policy", self.scaler.run),
        ]

    async def _open_bridge(self, addresses: tuple[str, ...]) -> api.Bridge:
        return await api.listen(self.config, addresses, version())

    async def _open_discovery(self, addresses: tuple[str, ...]) -> Discovery:
        await (discovery := Discovery(addresses)).start()
        return discovery

    def _probe(self, data: DataDir) -> Coroutine[Any, Any, Capabilities]:
        return capabilities.probe(data.path)

    def _make_executor(self) -> Executor:
        return Executor(
            slots=self.context.slots,
            folder=self.context.data.path / data_folder.WORK,
            fault_kinds=self.config.fault_kinds,
            grants=self.config.grants,
            on_started=self.admission.on_started,
            on_called_back=self.admission.on_called_back,
            on_finished=self.completion.on_finished,
            on_progress=self.completion.on_progress,
            on_checkpoint=self.checkpoints.take,
        )

    # --- stop ---------------------------------------------------------------------------------------
    async def serve(self) -> None:
        """Until `shutdown` is requested, or a part that the node needs fails (raises ServiceFailed)."""
        assert self._services is not None
        stopped = asyncio.create_task(self.shutdown.requested.wait(), name="shutdown requested")
        try:
            await asyncio.wait({stopped, self._services}, return_when=asyncio.FIRST_COMPLETED)
            if self._services.done():
                self._services.result()
        finally:
            stopped.cancel()

    async def stop(self, drain_s: float | None = None) -> None:
        """Leave the mesh. `drain_s`: how long running tasks may take to end; default: what `shutdown` says."""
        context = self.context
        if self.shutdown.refusal:
            await self._drain(0.0)
            await self.election.resign()
            await self._tear_down()
            return
        await self.scaler.dismiss_started_nodes()
        self.heartbeat.state = "draining"
        self.puller.stop_pulling()
        if context.bus.connected:
            self.heartbeat.publish()
        await self._drain(self.shutdown.drain_s if drain_s is None else drain_s)
        replaceable = has_successor(self.registry.members(), context.node_id, context.addresses)
        if replaceable and self.shutdown.merge_order is None and context.bus.connected:
            await self.bus_host.leave(self.config.mesh_config.bus_leave_s)
        await draining.say_goodbye(context, self.election, self.heartbeat)
        await self._tear_down()

    async def _drain(self, limit_s: float) -> None:
        self.puller.stop_pulling()
        await draining.drain(self.deliveries, self.executor, self.checkpoints, limit_s)

    async def abandon(self) -> None:
        """Leave at once: other nodes run the tasks of this one when they notice."""
        await self._tear_down()

    def _on_close(self, what: str, close: Callable[[], Awaitable[object]]) -> None:
        """Call `close` when the node stops; the last one registered is called first."""

        async def close_logged() -> None:
            try:
                await close()
            except QueztlError as error:
                log.debug("could not close the %s: %s", what, error)

        self._opened.push_async_callback(close_logged)

    async def _close_discovery(self) -> None:
        await self.context.discovery.stop()  # the network watcher may have replaced it

    async def _adopt_merged_mesh(self, data: DataDir) -> None:
        order = self.shutdown.merge_order
        if order is not None:
            await asyncio.to_thread(merge_follow.adopt, data, order, self.config.mesh_name)

    async def _tear_down(self) -> None:
        self._closing.set()
        self.shutdown.request()
        if self._services is not None:
            await asyncio.gather(self._services, return_exceptions=True)
        await self._opened.aclose()

    # --- what the parts ask of each other -----------------------------------------------------------
    def _on_delivery(self, message: Message, stream_seq: int, delivered: int) -> None:
        self.admission.on_message(message, stream_seq, delivered)
        self._held.set()

    def _plan_pulls_soon(self) -> None:
        self.puller.plan_soon()

    def _on_cancel(self, message: Message) -> None:
        self.admission.cancel(message.subject.partition(".")[2])

    async def _on_reconnect(self) -> None:
        """The list of bus servers may have changed, and the connection has another client id."""
        self.bus_host.refresh_soon()
        await self._publish_record()
        await self.placement_plan.read()

    def _on_urls(self, urls: tuple[str, ...]) -> None:
        self.identity.on_urls(urls)

    async def _publish_record(self) -> int:
        """Write this node's record; returns its revision. Raises: BusUnavailable."""
        context = self.context
        context.record = record.record_of(context, self.bus_host.server is not None)
        return await context.bus.kv(subjects.KV_NODES).put(context.node_id, encode(context.record))

    def _on_bus_event(self, kind: str, facts: dict[str, Any]) -> None:
        log.info("bus: %s", " ".join([kind.replace("_", " "), *(f"{name}={value}" for name, value in facts.items())]))
