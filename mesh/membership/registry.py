"""The members of the mesh as one node observes them: the loop beside `mesh/membership/failure_detector.py`.

Every node runs it. It receives heartbeats and announcements of held deliveries (`mesh/membership/heartbeat_relay.py`),
reads the node records and, on the leader, gets connection events. Queries are evaluated when they are made; listeners
are called within half a heartbeat interval.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh import decoding, subjects
from mesh.config import MeshConfig
from mesh.decoding import Unreadable, readable
from mesh.errors import CannotStart, QueztlError
from mesh.membership import failure_detector
from mesh.membership.announcements import Announcements
from mesh.membership.failure_detector import Connection, PeerState
from mesh.membership.heartbeat_relay import HeartbeatRelay, standby_set
from mesh.membership.member import ALIVE, GONE, LEFT, Member
from mesh.membership.node_views import node_view
from mesh.messages import Heartbeat, Held, NodeRecord
from mesh.supervision import wait_until_set
from mesh.views import NodeView

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription
    from mesh.bus.kv import Entry

log = logging.getLogger(__name__)

#: Called with (node, state before, state now); "" is an unknown node.
Changed = Callable[[str, str, str], None]

#: Changed records are read at least this often, seconds: notices of changes may be lost.
REREAD_S = 30.0
#: Heartbeats of nodes without a record trigger a read at most this often, seconds.
UNKNOWN_AGAIN_S = 1.0
#: The shortest time between two reads after notices, seconds, plus the same again for every 50 nodes.
REREAD_AGAIN_S = 0.1
#: Reads after a notice: the notice arrives before the record is stored.
READS_PER_NOTICE = 3
#: A larger heartbeat is ignored: with the run times of thirty kinds it has 2 KB.
HEARTBEAT_BYTES = 64 * 1024


class Registry:
    """The members as one node observes them: `start()`, then `run()` until cancelled, then `close()`."""

    def __init__(self, bus: Bus, me: str, config: MeshConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus, self._me, self._config, self._clock = bus, me, config, clock
        self._seen: dict[str, PeerState] = {}
        self._records: dict[str, NodeRecord] = {}
        self._revisions: dict[str, int] = {}
        self._heartbeats: dict[str, Heartbeat] = {}
        self.announcements = Announcements(config.limits)
        self._early: dict[tuple[str, str], set[Connection]] = {}
        """(node, incarnation) -> open connections of incarnations whose record has not been read yet."""
        self._states: dict[str, str] = {}
        self.heartbeat_relay = HeartbeatRelay(bus, config, self._on_heartbeat, self._on_held, self._on_alone, clock)
        self.on_own_record: Callable[[int, NodeRecord | None], None] = lambda *_: None
        """Called with (revision, record or None) when this node's own record was written, deleted or overwritten."""
        self._listeners: list[Changed] = []
        self._subscriptions: list[Subscription] = []
        self._listening_since = self._ticked_at = clock()
        self._trust_disconnects_from = 0.0
        self._was_connected = True
        self._wake = asyncio.Event()
        self._records_due = READS_PER_NOTICE
        self._read_up_to = 0
        """The highest revision of the records read so far."""
        self._read_at = 0.0

    # --- the loop -----------------------------------------------------------------------------------
    async def start(self) -> None:
        """Subscribe, and read all records. Raises: BusUnavailable; CannotStart when there is no room for this node."""
        await self.heartbeat_relay.start()
        self._subscriptions = [await self._bus.kv(subjects.KV_NODES).watch(lambda _: self._on_record_notice())]
        self._listening_since = self._ticked_at = self._clock()
        await self.refresh()
        if self.is_full and self._me not in self._records:
            limit = self._config.limits.nodes
            raise CannotStart(
                f"This mesh has as many nodes as it may have ({limit}; a node that is gone counts for an hour more); "
                "start its nodes with a higher --limit nodes=N."
            )

    async def run(self) -> None:
        """Evaluate all states every half heartbeat interval, and after every event."""
        period_s = self._config.heartbeat_interval_s / 2
        while True:
            self._correct_for_stalls(period_s)
            if self._bus.connected:
                await self.heartbeat_relay.adjust()
            self.judge()
            if self._records_due or self._clock() - self._read_at > REREAD_S:
                await self._reread()
            await wait_until_set(self._wake, period_s)
            self._wake.clear()

    async def close(self) -> None:
        """End all subscriptions."""
        await self.heartbeat_relay.close()
        for subscription in self._subscriptions:
            await subscription.close()
        self._subscriptions.clear()

    async def refresh(self) -> None:
        """Read all node records now. Raises: BusUnavailable."""
        entries = await self._read(0)
        for node in self._seen.keys() - {entry.key for entry in entries if entry.value}:
            self._forget(node)
        self.judge()

    async def catch_up(self) -> None:
        """Read the records that changed since the last read. Raises: BusUnavailable."""
        if await self._read(self._read_up_to):
            self.judge()

    async def _read(self, after: int) -> list[Entry]:
        due = self._records_due = max(0, self._records_due - 1)
        self._read_at = now = self._clock()
        entries = await self._bus.kv(subjects.KV_NODES).changes(after)
        if entries and self._records_due == due:
            # Read once more: if two notices came together, the second record may be stored a moment later.
            self._records_due = min(due, 1)
        for entry in entries:
            self._read_up_to = max(self._read_up_to, entry.revision)
            self._take_record(entry, now)
        return entries

    def _take_record(self, entry: Entry, now: float) -> None:
        if entry.revision <= self._revisions.get(entry.key, 0):
            return  # known already, or from a lagging replica, which must not bring an old incarnation back
        record = readable(decoding.node, entry)
        if entry.key == self._me:
            self.on_own_record(entry.revision, record)
        if not entry.value:
            self._revisions[entry.key] = entry.revision
            if entry.key in self._seen:
                self._forget(entry.key)
            return
        if record is None or record.id != entry.key:
            return
        before, limits = self._seen.get(entry.key), self._config.limits
        if before is None and len(self._records) >= limits.nodes + limits.registered_nodes and entry.key != self._me:
            return
        self._revisions[entry.key] = entry.revision
        is_newer = before is not None and before.incarnation != record.incarnation
        if before is not None and is_newer and self.announcements.replaced(entry.key, before.incarnation):
            self._wake.set()
        seen = failure_detector.recorded(before, record, now)
        for connection in self._early.pop((entry.key, record.incarnation), ()):
            seen = failure_detector.connected(seen, record.incarnation, connection)
        self._seen[entry.key] = seen
        self._records[entry.key] = record

    async def _reread(self) -> None:
        if self._clock() - self._read_at < REREAD_AGAIN_S * (1 + len(self._seen) / 50) or not self._bus.connected:
            return
        try:
            if self._read_up_to:
                await self.catch_up()
            else:
                await self.refresh()
        except QueztlError as error:
            self._records_due = READS_PER_NOTICE
            log.info("could not read the node records: %s", error.message)

    def _correct_for_stalls(self, period_s: float) -> None:
        """Extend the deadlines by the time for which this process was suspended or off the bus."""
        now = self._clock()
        late_s = now - self._ticked_at - period_s
        self._ticked_at = now
        if late_s > self._config.heartbeat_interval_s / 2:
            self._seen = {node: failure_detector.extended(peer, late_s) for node, peer in self._seen.items()}
        if not (self._bus.connected and self._was_connected):
            self.bus_restarted()
        self._was_connected = self._bus.connected

    def judge(self) -> None:
        """Evaluate all states, and call the listeners for those that changed."""
        before, self._states = self._states, (states := self._verdicts())
        if states == before:
            return
        self.heartbeat_relay.in_standby_set = self._me in standby_set(states, self.heartbeat_relay.leader)
        for node in sorted(before.keys() | states.keys()):
            old, new = before.get(node, ""), states.get(node, "")
            if old != new:
                for listener in list(self._listeners):
                    listener(node, old, new)

    def _verdicts(self) -> dict[str, str]:
        heard_until = self.heartbeat_relay.heard_until(self._clock())
        return failure_detector.verdicts(self._seen, self._me, self._config, heard_until)

    # --- events -------------------------------------------------------------------------------------
    def _on_heartbeat(self, data: bytes) -> None:
        heartbeat = decoding.heartbeat(data) if len(data) <= HEARTBEAT_BYTES else Unreadable("is too large")
        if isinstance(heartbeat, Unreadable):
            log.debug("a heartbeat is ignored: it %s", heartbeat.reason)
            return
        before = self._seen.get(heartbeat.node)
        if before is None and self.is_full:
            return
        after = failure_detector.heard(before, heartbeat, self._config.disconnect_grace_s, self._clock())
        if (after is None or not after.recorded) and self._clock() - self._read_at > UNKNOWN_AGAIN_S:
            self._on_record_notice()
        if after is None:
            return
        self._seen[heartbeat.node] = after
        self._heartbeats[heartbeat.node] = heartbeat
        if before is None or self._states.get(heartbeat.node) != after.reported_state:
            self._wake.set()

    def _on_alone(self, leader: str) -> None:
        """The leader's digests stay away: the silence of the others counts from now, when this node subscribes."""
        now = self._clock()
        others = self._seen.keys() - {leader, self._me}
        self._seen |= {node: failure_detector.silence_restarted(self._seen[node], now) for node in others}

    def _on_held(self, message: Message) -> None:
        self.announcements.take(message.subject.split(".", 2)[1], message.data)

    def _on_record_notice(self) -> None:
        if not self._records_due:
            self._wake.set()
        self._records_due = READS_PER_NOTICE

    def connection_opened(self, node: str, incarnation: str, connection: Connection) -> None:
        """The bus reports that a connection was opened (on the leader only)."""
        if self.is_present(node, incarnation):
            self._seen[node] = failure_detector.connected(self._seen[node], incarnation, connection)
        else:
            self._early.setdefault((node, incarnation), set()).add(connection)

    def connection_closed(self, node: str, incarnation: str, connection: Connection) -> None:
        """The bus reports that a connection was closed: a suspicion, unless the bus itself is restarting."""
        now, seen = self._clock(), self._seen.get(node)
        if seen is None or seen.incarnation != incarnation:
            early = self._early.get((node, incarnation), set())
            early.discard(connection)
            if not early:
                self._early.pop((node, incarnation), None)
            return
        trusted = now >= self._trust_disconnects_from
        self._seen[node] = failure_detector.disconnected(seen, incarnation, connection, now, trusted)
        asyncio.get_running_loop().call_later(self._config.disconnect_grace_s + 0.001, self._wake.set)

    def bus_restarted(self) -> None:
        """A bus server stopped or started: silence counts from now, and disconnects are not trusted for a while."""
        now = self._clock()
        self._trust_disconnects_from = now + self._config.heartbeat_interval_s * self._config.gone_after_missed
        self._seen = {node: failure_detector.grace_restarted(peer, now) for node, peer in self._seen.items()}
        self._listening_since = now
        self._early.clear()
        self._read_up_to = 0
        self._on_record_notice()

    def _forget(self, node: str) -> None:
        if failure_detector.verdict(self._seen[node], self._config, self._clock()) in ALIVE:
            return  # it sends heartbeats and will write a record again
        self.announcements.forget(node)
        for known in (self._seen, self._records, self._heartbeats):
            known.pop(node, None)

    # --- queries ------------------------------------------------------------------------------------
    @property
    def is_full(self) -> bool:
        """Whether there are as many nodes as there may be."""
        return sum(not seen.registered for seen in self._seen.values()) >= self._config.limits.nodes

    def listen(self, changed: Changed) -> Callable[[], None]:
        """Have `changed(node, before, now)` called at every change of a state; call the returned function to end it."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def revision_of(self, node: str) -> int:
        """The revision of the node's record as last read; 0 when it has none."""
        return self._revisions.get(node, 0)

    def state_of(self, node: str) -> str:
        """up, suspect, gone, draining, left or registered; "" for an unknown node."""
        return self._verdicts().get(node, "")

    def judged(self) -> dict[str, str]:
        """Node id -> state at the last evaluation, as reported to the listeners; includes nodes without a record."""
        return dict(self._states)

    def is_alive(self, node: str, incarnation: str) -> bool:
        """Whether that incarnation is alive, or may be (suspect)."""
        seen = self._seen.get(node)
        return seen is not None and seen.incarnation == incarnation and self.state_of(node) in ALIVE

    def is_gone(self, node: str, incarnation: str) -> bool:
        """Whether that incarnation is certainly not alive: silent for long enough *while this node was listening*."""
        seen = self._seen.get(node)
        if seen is not None and seen.incarnation == incarnation:
            return self.state_of(node) in (GONE, LEFT)
        if seen is not None and seen.recorded:
            return True
        patience_s = self._config.heartbeat_interval_s * self._config.gone_after_missed
        return self._bus.connected and self._clock() - self._listening_since > patience_s

    def is_present(self, node: str, incarnation: str) -> bool:
        """Whether that is the latest incarnation of the node, alive or not."""
        seen = self._seen.get(node)
        return seen is not None and seen.incarnation == incarnation

    def held_by(self, node: str) -> tuple[Held, ...]:
        """The deliveries that the current incarnation of the node announced last."""
        seen = self._seen.get(node)
        return self.announcements.held_by(node, seen.incarnation) if seen is not None else ()

    def seen(self) -> dict[str, PeerState]:
        """Node id -> all that is known of it. Do not modify it."""
        return self._seen

    def members(self) -> tuple[Member, ...]:
        """All nodes that have a record."""
        states = self._verdicts()
        return tuple(
            Member(record, states[node], self._heartbeats.get(node))
            for node, record in sorted(self._records.items())
            if node in states
        )

    def view(self, leader: str = "") -> tuple[NodeView, ...]:
        """All members for people, sorted by name; `leader`: node id of the leader."""
        now = self._clock()
        views: list[NodeView] = []
        for member in self.members():
            heard_at = self._seen[member.record.id].heard_at
            views.append(node_view(member, now - heard_at if heard_at >= 0 else -1.0, member.record.id == leader))
        return tuple(sorted(views, key=lambda view: (view.name, view.id)))
