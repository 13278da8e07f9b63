"""Notices another process that runs as this node: the loop beside `mesh/membership/twins.py`.

A process asks before it joins, and refuses to start where it is answered. While it runs it claims its identity every
few seconds, and answers the claims of others. The one that must not go on asks once more, so that no single message
ends a node, and then stops without a goodbye: the node is there all the same. The one that goes on says so in its
heartbeats, and writes its record again where the other has replaced it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec

from mesh import decoding, subjects
from mesh.bus.client import Bus, Message
from mesh.bus.errors import NobodyAnswers
from mesh.coordination import IdentityClaim
from mesh.decoding import Unreadable, readable
from mesh.discovery.announcement import Announcement
from mesh.discovery.identity import DataDir, new_token
from mesh.discovery.interfaces import usable_addresses
from mesh.errors import BusUnavailable, CannotStart, QueztlError
from mesh.leader import journal
from mesh.membership import twins
from mesh.membership.member import UP
from mesh.membership.registry import Registry
from mesh.messages import NodeRecord, encode
from mesh.supervision import wait_until_set
from node.config import NodeConfig
from node.context import NodeContext
from node.identity.machine import claim_of

log = logging.getLogger(__name__)
#: The period of the claims, seconds.
CLAIM_EVERY_S = 5.0
#: A process that was cut off does not answer; its connection may still be open at the bus. Seconds.
ANSWER_WITHIN_S = 1.0
#: A twin that was not heard for this long is gone, seconds: twice what a service manager waits before another start.
SHOWN_S = 60.0
#: While a twin is there, this node's record is checked this often, seconds.
CHECK_EVERY_S = 1.0


async def twin_on(bus: Bus, mine: IdentityClaim) -> IdentityClaim | None:
    """The claim of another process that runs as this node on that bus and goes on; None when there is none.

    Raises: BusUnavailable.
    """
    try:
        reply = await bus.request(subjects.identity(mine.node), encode(mine), timeout_s=ANSWER_WITHIN_S)
    except NobodyAnswers:
        return None
    except BusUnavailable:
        if not bus.connected:
            raise
        return None
    found = decoding.identity_claim(reply.data)
    if isinstance(found, Unreadable) or found.node != mine.node or found.session == mine.session:
        return None
    return None if twins.goes_on(mine, found) else found


async def refuse_twin(bus: Bus, data: DataDir, interface: str) -> None:
    """Before this node joins the mesh on that bus. Raises: CannotStart when it runs there already, BusUnavailable."""
    mine = claim_of(data, new_token("s"), usable_addresses(interface).addresses)
    found = await twin_on(bus, mine)
    if found is not None:
        raise CannotStart(twins.refusal(mine, found, str(data.path)))


async def refuse_copy(
    config: NodeConfig, data: DataDir, peers: Iterable[Announcement], own_urls: Sequence[str]
) -> None:
    """Before this node goes on with a bus of its own: an announcement under its id may be of a copy of its store, or of
    the original, on another bus. Raises: CannotStart when a process answers there as this node.
    """
    for peer in peers:
        if peer.node_id != data.node_id or not peer.urls or set(own_urls) & set(peer.urls):
            continue
        try:
            bus = await Bus.connect(peer.urls, name=f"twin of {data.node_id}", config=config.mesh_config)
        except BusUnavailable:
            continue
        try:
            await refuse_twin(bus, data, config.interface)
        except BusUnavailable:
            continue
        finally:
            await bus.close()


class TwinWatch:
    """One node's watch for its twins: `listen()`, then `run()` until cancelled."""

    def __init__(self, context: NodeContext, publish_record: Callable[[], Awaitable[object]]) -> None:
        self._context, self._publish_record = context, publish_record
        self._bus: Bus = context.bus
        self._session, self._former, self._switched_at = new_token("s"), "", float("-inf")
        self._heard_at = float("-inf")
        self._twin: IdentityClaim | None = None
        self._rival: IdentityClaim | None = None
        """A process that would go on instead of this one; it is asked once more before this one stops."""
        self._reported = ""
        self._wake = asyncio.Event()
        self._must_publish = False
        self.ticket = 0
        """The revision of the first node record that this process wrote."""

    @property
    def twin(self) -> str:
        """The machine of a twin that was heard lately, for people; "" when there is none."""
        return twins.machine_of(self._twin) if self._twin is not None and self._ago_s() < SHOWN_S else ""

    def _ago_s(self) -> float:
        return time.monotonic() - self._heard_at

    def _claim(self) -> IdentityClaim:
        made = claim_of(self._context.data, self._session, self._context.addresses)
        return msgspec.structs.replace(made, connections=self._bus.epoch, ticket=self.ticket)

    async def listen(self, registry: Registry) -> None:
        """Answer the claims of other processes, and watch this node's record. Raises: BusUnavailable."""
        registry.on_own_record = self._on_own_record
        await self._bus.subscribe(subjects.identity(self._context.node_id), self._on_claim)
        self._bus.on_back.append(self._on_reconnect)

    def _on_own_record(self, revision: int, record: NodeRecord | None) -> None:
        """This node's record was written or deleted: write it again if another process did that."""
        is_later = 0 < self.ticket < revision and not self._context.shutdown.requested.is_set()
        own = self._context.data.incarnation
        if is_later and (record is None or (record.incarnation, record.state) != (own, UP)):
            self._must_publish = True
            self._wake.set()

    def _on_reconnect(self) -> None:
        self._former, self._session, self._switched_at = self._session, new_token("s"), time.monotonic()
        self._wake.set()

    def _on_claim(self, message: Message) -> None:
        claim = decoding.identity_claim(message.data)
        if isinstance(claim, Unreadable) or claim.node != self._context.node_id:
            log.debug("a claim of this node's identity is ignored")
            return
        if twins.is_own(claim, self._session, self._former, time.monotonic() - self._switched_at):
            return
        mine = self._claim()
        if message.reply:
            self._bus.send(message.reply, encode(mine))
        if twins.goes_on(mine, claim):
            if self._twin is None or self._ago_s() > CHECK_EVERY_S:
                self._wake.set()  # so that the other hears this one's claim now
            self._twin, self._heard_at = claim, time.monotonic()
        else:
            self._rival = claim
            self._wake.set()

    async def run(self) -> None:
        """Claim the identity, report twins, yield to one. Returns when this process must stop."""
        while True:
            self._wake.clear()
            try:
                if self._bus.connected and await self._step():
                    return
            except QueztlError as error:
                log.debug("could not look for another process that runs as this node: %s", error.message)
            await wait_until_set(self._wake, CHECK_EVERY_S if self.twin else CLAIM_EVERY_S)

    async def _step(self) -> bool:
        """Whether this process must stop."""
        self._bus.send(subjects.identity(self._context.node_id), encode(self._claim()))
        if self._rival is not None:
            self._rival, mine = None, self._claim()
            found = await twin_on(self._bus, mine)
            if found is not None:
                self._context.shutdown.refusal = twins.refusal(mine, found, str(self._context.data.path))
                log.error("%s", self._context.shutdown.refusal)
                self._context.shutdown.request()
                return True
        if self._must_publish:
            log.warning("this node's record was overwritten or deleted, and is written again")
            self._must_publish = False
            await self._publish_record()
        if self.twin:
            await self._keep_identity()
        elif self._reported:
            log.info("no other process runs as this node any more")
            self._reported = ""
        return False

    async def _keep_identity(self) -> None:
        """Report the twin once, and keep this node's record. Raises: BusUnavailable."""
        node, twin = self._context.node_id, self.twin
        if twin != self._reported:
            self._reported = twin
            sentence = twins.alarm(node, twins.machine_of(self._claim()), twin)
            log.warning("%s", sentence)
            await journal.emit(self._bus, journal.NODE_TWIN, {"says": sentence}, node=node)
        entry = await self._bus.kv(subjects.KV_NODES).get(node)
        record = readable(decoding.node, entry)
        if record is None or record.incarnation != self._context.data.incarnation:
            await self._publish_record()
