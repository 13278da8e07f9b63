"""How a node waits for a mesh that it remembers: it says who waits for whom, and looks for the others meanwhile.

After a power cut a node may have to wait for a majority of the bus servers, or for a person. Machines may have new
addresses by then, so remembered ones are joined by those that other nodes announce and by those of `--join`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mesh import decoding, subjects
from mesh.bus.client import Bus
from mesh.bus.server.config import SYSTEM_USER
from mesh.bus.server.introduction import routes_of
from mesh.cluster import quorum_recovery
from mesh.cluster.own_group import is_in_group
from mesh.cluster.raft_meta import leaderless
from mesh.cluster.routes import member_urls
from mesh.cluster.waiting import KnownServers, advice, known_members, reached_hosts, view_of, waiting_network
from mesh.decoding import readable
from mesh.discovery.announcement import SEEKER, Announcement
from mesh.discovery.identity import DataDir, MeshIdentity
from mesh.discovery.interfaces import usable_addresses
from mesh.errors import BusUnavailable, CannotStart, QueztlError
from mesh.membership.connections import system_password
from mesh.views import NetworkView, WaitingView
from node.lifecycle.peer_routes import PeerRoutes
from node.lifecycle.twins import refuse_twin

if TYPE_CHECKING:
    from mesh.bus.server.data_dir import BusMarker, Route
    from mesh.bus.server.supervisor import BusServer
    from mesh.discovery.mdns import Discovery
    from node.config import NodeConfig

log = logging.getLogger(__name__)

LEADERS_CHECK_S = 0.25
#: How long the bus may take to answer before the node looks for the other servers, seconds.
READY_WITHIN_S = 2.0
ADDRESSES_CHECK_S = 3.0


class ServerReplaced(Exception):
    """The mesh has replaced the bus server of this node while the node was away."""


@dataclass
class Waiting:
    """One node that waits for the mesh `mesh`."""

    config: NodeConfig
    data: DataDir
    mesh: MeshIdentity
    discovery: Discovery
    api: str
    """URL of its REST bridge."""
    version: str
    report: Callable[[str], None]
    """Tells the user a sentence."""
    show: Callable[[NetworkView | None], None]
    """Publishes what the REST bridge answers while the node waits."""
    _reported: str = ""
    _checked_at: float = field(default_factory=time.monotonic)
    _asked: tuple[str, ...] = field(default=())
    """The URLs of the mesh that were asked last whether it has replaced this node's server."""

    @property
    def routes(self) -> PeerRoutes:
        """Where the other servers are."""
        return PeerRoutes(self.mesh.id, self.discovery.peers, self.config.join)

    # --- with a bus server of its own -----------------------------------------------------------------
    async def until_majority(self, bus: Bus, server: BusServer) -> None:
        """Return once the bus answers: its servers elect a leader when a majority of them is connected.

        Raises: ServerReplaced.
        """
        announced = False
        while True:
            announced &= not await self.follow_addresses(server)
            with contextlib.suppress(QueztlError):
                await bus.check_ready(timeout_s=READY_WITHIN_S)
                return
            if not announced:
                announced = True
                await self._announce(server)
            if await self._was_replaced(server):
                raise ServerReplaced
            heard = await self.routes.find(server)
            await self._publish_known(server.address.client_urls, known_members(server.marker, server.routes), heard)
            await asyncio.sleep(LEADERS_CHECK_S)

    async def follow_addresses(self, server: BusServer | None = None) -> bool:
        """Whether this machine has got other addresses, on which the node listens and announces then.

        A node that starts with its machine may be there before the network is.
        """
        now = time.monotonic()
        if now - self._checked_at < ADDRESSES_CHECK_S:
            return False
        self._checked_at = now
        choice = await asyncio.to_thread(usable_addresses, self.config.interface)
        if not choice.addresses or choice.reason or choice.addresses == self.discovery.addresses:
            return False
        log.info("this machine's addresses changed to %s", ", ".join(choice.addresses))
        await self.discovery.move(choice.addresses)
        if server is not None:
            server.move(choice.addresses)
        return True

    async def _announce(self, server: BusServer) -> None:
        """Say where the server of this node is, so that the others find it at a new address."""
        await self.discovery.announce(
            Announcement(
                self.mesh.name, self.mesh.id, "", self.data.node_id, server.address.client_urls, SEEKER, self.api,
                self.version, routes=server.routes,
            )
        )  # fmt: skip

    async def _was_replaced(self, server: BusServer) -> bool:
        urls = tuple(member_urls(self.discovery.peers(), self.mesh.id))
        if not urls or urls == self._asked:
            return False
        self._asked = urls
        return not await self.is_member(server.marker, urls)

    async def is_member(self, marker: BusMarker, urls: Iterable[str]) -> bool:
        """Whether the bus server of this node still belongs to the mesh, as the servers at `urls` report.

        While the node was away, the leader may have replaced its server: then it is not in the servers' own group, and
        the mesh has no record of it. The record alone does not count, since anybody can write or delete it. Where no
        server of this very mesh answers, or none leads, it is taken for one: without the others it has no majority.
        Raises: CannotStart when another process runs as this node.
        """
        ours = await routes_of(urls, self.mesh.id, system_password(self.mesh.id))
        if not ours:
            return True
        try:
            bus = await Bus.connect(tuple(ours), name="membership", config=self.config.mesh_config)
        except BusUnavailable:
            return True
        try:
            # Before its server starts: two servers of one name would cut each other off.
            await refuse_twin(bus, self.data, self.config.interface)
            password = system_password(self.mesh.id)
            if await is_in_group(tuple(ours), password, marker.server_name, self.config.mesh_config) is not False:
                return True
            entry = await bus.kv(subjects.KV_MESH).get(subjects.server_key(self.data.node_id))
        except CannotStart:
            raise
        except QueztlError:
            return True
        finally:
            await bus.close()
        record = readable(decoding.server, entry)
        # Where the record can't be read, nobody knows: the store stays, for it may hold the only copy of something.
        return entry is not None and (record is None or record.name == marker.server_name)

    # --- with or without one --------------------------------------------------------------------------
    async def until_led(self, bus: Bus, urls: Iterable[str], server: BusServer | None = None) -> None:
        """Return once every stream has a leader: after a power cut each elects one, some seconds after the bus did."""
        members = known_members(server.marker, server.routes) if server is not None else {}
        while True:
            try:
                electing = await leaderless(bus)
                if not electing:
                    self.show(None)
                    return
                reason = f"waiting for the bus to elect the leaders of the streams {', '.join(sorted(electing))}"
                self.tell(WaitingView(reason), urls)
            except QueztlError:
                await self.follow_addresses(server)
                bus.learn(member_urls(self.discovery.peers(), self.mesh.id))
                await self._publish_known(urls, members, frozenset())
            await asyncio.sleep(LEADERS_CHECK_S)

    async def _publish_known(
        self, urls: Iterable[str], members: Mapping[str, Sequence[Route]], heard: frozenset[str]
    ) -> None:
        """Publish who waits for whom, as the reachable bus servers report it."""
        urls = tuple(urls)
        found = quorum_recovery.Damage("", (), 0)
        with contextlib.suppress(QueztlError):
            login = {"user": SYSTEM_USER, "password": system_password(self.mesh.id)}
            system = await Bus.connect(urls, name=f"system {self.data.node_id}", **login)
            try:
                found = await quorum_recovery.look(system)
            finally:
                await system.close()
        known = KnownServers(
            self.data.node_id, members, reached_hosts(found.reachable), heard, found.size, bool(found.leader),
            self._rescue_command(hosts=self.data.node_id in members),
        )  # fmt: skip
        self.tell(view_of(known), urls)

    def _rescue_command(self, hosts: bool) -> str:
        where = f"--data {shlex.quote(str(self.data.path))}" if hosts else f"--url {self.api}"
        return f"queztl bus rescue {where} --yes"

    def publish_reason(self, reason: str) -> None:
        """Publish that the node waits for `reason`."""
        self.tell(WaitingView(reason))

    def tell(self, view: WaitingView, urls: Iterable[str] = ()) -> None:
        """Publish `view`, and tell the user when it has changed."""
        self.show(waiting_network(self.mesh, urls or self.data.bus_urls, view))
        sentence = ". ".join(filter(None, (view.reason, advice(view))))
        if sentence != self._reported:
            self._reported = sentence
            self.report(sentence)
