"""Who is in the mesh, as this node sees it: the loop beside `mesh/membership/failure_detector.py`, run by every node.

It hears heartbeats and announcements of held deliveries (`mesh/membership/heartbeat_relay.py`), reads the node records,
and takes what the master's system connection learns of connections. Announcements are kept as they came and decoded
only when somebody dies. Answers are as fresh as the moment of asking; listeners are told within half a heartbeat.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from mesh import messages, subjects
from mesh.config import MeshConfig
from mesh.errors import QueztlError
from mesh.membership import failure_detector
from mesh.membership.failure_detector import Connection, PeerState
from mesh.membership.heartbeat_relay import HeartbeatRelay, standby_set
from mesh.membership.member import ALIVE, GONE, LEFT, Member
from mesh.membership.node_views import node_view
from mesh.messages import Heartbeat, Held, HeldSet, NodeRecord
from mesh.supervision import wait_until_set
from mesh.views import NodeView

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription
    from mesh.bus.kv import Entry

log = logging.getLogger(__name__)

#: Called with (node, state before, state now); "" means unknown.
Changed = Callable[[str, str, str], None]

#: What was written since the last reading is read at least this often, seconds: hints of changes are at most once.
REREAD_S = 30.0
#: Heartbeats of nodes without a record cause a reading at most this often, seconds.
UNKNOWN_AGAIN_S = 1.0
#: Two readings caused by hints are at least this far apart, seconds, and as much again for every 50 nodes.
REREAD_AGAIN_S = 0.1
#: A hint comes before what it tells of is stored: so often is it looked for.
LOOKS_A_HINT = 3


class Registry:
    """The mesh as one node sees it. `await start()`, then `run()` until cancelled, then `close()`."""

    def __init__(self, bus: Bus, me: str, config: MeshConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus, self._me, self._config, self._clock = bus, me, config, clock
        self._seen: dict[str, PeerState] = {}
        self._records: dict[str, NodeRecord] = {}
        self._revisions: dict[str, int] = {}
        self._heartbeats: dict[str, Heartbeat] = {}
        self._held: dict[str, bytes] = {}
        self._former: dict[tuple[str, str], bytes] = {}
        """What incarnations since replaced had announced."""
        self._early: dict[tuple[str, str], set[Connection]] = {}
        """Connections of incarnations whose record has not been read yet."""
        self._states: dict[str, str] = {}
        self.heartbeat_relay = HeartbeatRelay(bus, config, self._on_heartbeat, self._on_held, self._on_alone, clock)
        self._listeners: list[Changed] = []
        self._subscriptions: list[Subscription] = []
        self._listening_since = self._ticked_at = clock()
        self._believe_cuts_from = 0.0
        self._was_connected = True
        self._look = asyncio.Event()
        self._records_due = LOOKS_A_HINT
        self._read_up_to = 0
        """The newest revision of any record that was read."""
        self._read_at = 0.0

    # --- the loop -----------------------------------------------------------------------------------
    async def start(self) -> None:
        """Listen, and read the records once. Raises: BusUnavailable."""
        await self.heartbeat_relay.start()
        self._subscriptions = [await self._bus.kv(subjects.KV_NODES).watch(lambda _: self._hint_records())]
        self._listening_since = self._ticked_at = self._clock()
        await self.refresh()

    async def run(self) -> None:
        """Judge everybody every half heartbeat, and whenever something happened."""
        period_s = self._config.heartbeat_interval_s / 2
        while True:
            self._doubt(period_s)
            if self._bus.connected:
                await self.heartbeat_relay.look()
            self.judge()
            if self._records_due or self._clock() - self._read_at > REREAD_S:
                await self._reread()
            await wait_until_set(self._look, period_s)
            self._look.clear()

    async def close(self) -> None:
        """Stop listening."""
        for one in (self.heartbeat_relay, *self._subscriptions):
            await one.close()
        self._subscriptions.clear()

    async def refresh(self) -> None:
        """Read every node record now. Raises: BusUnavailable."""
        entries = await self._read(0)
        for node in self._seen.keys() - {entry.key for entry in entries if entry.value}:
            self._forget(node)
        self.judge()

    async def catch_up(self) -> None:
        """Read what was written since the last reading: not all, for each of many that come at once.

        Raises: BusUnavailable.
        """
        if await self._read(self._read_up_to):
            self.judge()

    async def _read(self, after: int) -> list[Entry]:
        due = self._records_due = max(0, self._records_due - 1)
        self._read_at = now = self._clock()
        entries = await self._bus.kv(subjects.KV_NODES).changes(after)
        if entries and self._records_due == due:
            # Once more: of two hints at a time, the second one's record may be stored a moment later.
            self._records_due = min(due, 1)
        for entry in entries:
            self._read_up_to = max(self._read_up_to, entry.revision)
            self._take_record(entry, now)
        return entries

    def _take_record(self, entry: Entry, now: float) -> None:
        if entry.revision <= self._revisions.get(entry.key, 0):
            return  # known, or read from a server that lags behind: it must not bring an old incarnation back
        if not entry.value:
            self._revisions[entry.key] = entry.revision
            if entry.key in self._seen:
                self._forget(entry.key)
            return
        try:
            record = messages.decode_node(entry.value)
        except msgspec.MsgspecError as error:
            log.warning("the record of node %s can't be read and is ignored: %s", entry.key, error)
            return
        self._revisions[entry.key] = entry.revision
        before = self._seen.get(entry.key)
        if before is not None and before.incarnation != record.incarnation:
            self._bury(entry.key, before)
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
            self._records_due = LOOKS_A_HINT
            log.info("the node records could not be read just now: %s", error.message)

    def _doubt(self, period_s: float) -> None:
        """What this observer must doubt about itself, before anybody is judged."""
        now = self._clock()
        late_s = now - self._ticked_at - period_s
        self._ticked_at = now
        if late_s > self._config.heartbeat_interval_s / 2:
            self._seen = {node: failure_detector.extended(one, late_s) for node, one in self._seen.items()}
        if not (self._bus.connected and self._was_connected):
            self.bus_restarted()
        self._was_connected = self._bus.connected

    def judge(self) -> None:
        """Tell the listeners who changed."""
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

    # --- what comes in ------------------------------------------------------------------------------
    def _on_heartbeat(self, data: bytes) -> None:
        try:
            heartbeat = messages.decode_heartbeat(data)
        except msgspec.MsgspecError as error:
            log.debug("a heartbeat can't be read: %s", error)
            return
        before = self._seen.get(heartbeat.node)
        after = failure_detector.heard(before, heartbeat, self._config.disconnect_grace_s, self._clock())
        if (after is None or not after.recorded) and self._clock() - self._read_at > UNKNOWN_AGAIN_S:
            self._hint_records()
        if after is None:
            return
        self._seen[heartbeat.node] = after
        self._heartbeats[heartbeat.node] = heartbeat
        if before is None or self._states.get(heartbeat.node) != after.said:
            self._look.set()

    def _on_alone(self, leader: str) -> None:
        """The master's roll stays away: the others' silence counts from now, when this node begins to listen."""
        now, but = self._clock(), (leader, self._me)
        seen = self._seen
        self._seen = {node: one if node in but else failure_detector.unheard(one, now) for node, one in seen.items()}

    def _on_held(self, message: Message) -> None:
        self._held[message.subject.split(".", 2)[1]] = message.data

    def _hint_records(self) -> None:
        if not self._records_due:
            self._look.set()
        self._records_due = LOOKS_A_HINT

    def connection_opened(self, node: str, incarnation: str, connection: Connection) -> None:
        """The bus says so (only the master asks it)."""
        if self.is_present(node, incarnation):
            self._seen[node] = failure_detector.connected(self._seen[node], incarnation, connection)
        else:
            self._early.setdefault((node, incarnation), set()).add(connection)

    def connection_closed(self, node: str, incarnation: str, connection: Connection) -> None:
        """The bus says so: a suspicion, unless the bus itself is restarting."""
        now, seen = self._clock(), self._seen.get(node)
        if seen is None or seen.incarnation != incarnation:
            early = self._early.get((node, incarnation), set())
            early.discard(connection)
            if not early:
                self._early.pop((node, incarnation), None)
            return
        believed = now >= self._believe_cuts_from
        self._seen[node] = failure_detector.disconnected(seen, incarnation, connection, now, believed)
        asyncio.get_running_loop().call_later(self._config.disconnect_grace_s + 0.001, self._look.set)

    def bus_restarted(self) -> None:
        """A bus server went or came: silence counts from now, cuts are not believed for a while."""
        now = self._clock()
        self._believe_cuts_from = now + self._config.heartbeat_interval_s * self._config.gone_after_missed
        self._seen = {node: failure_detector.grace_restarted(one, now) for node, one in self._seen.items()}
        self._listening_since = now
        self._early.clear()
        self._read_up_to = 0
        self._hint_records()

    def _bury(self, node: str, before: PeerState) -> None:
        """A newer incarnation came: the former one is dead, and what it held is still to be given back."""
        held = self._held.pop(node, None)
        if held is not None and before.incarnation:
            self._former[node, before.incarnation] = held
            self._look.set()

    def _forget(self, node: str) -> None:
        if failure_detector.verdict(self._seen[node], self._config, self._clock()) in ALIVE:
            return  # it beats, and will write a record
        for known in (self._seen, self._records, self._heartbeats, self._held):
            known.pop(node, None)

    # --- what can be asked --------------------------------------------------------------------------
    def listen(self, changed: Changed) -> Callable[[], None]:
        """Have `changed(node, before, now)` called at every change of a state; call the answer to end it."""
        self._listeners.append(changed)
        return lambda: self._listeners.remove(changed)

    def revision_of(self, node: str) -> int:
        """The revision of its record as last read, 0 when there is none."""
        return self._revisions.get(node, 0)

    def state_of(self, node: str) -> str:
        """up, suspect, gone, draining, left, registered; "" for a node never heard of."""
        return self._verdicts().get(node, "")

    def judged(self) -> dict[str, str]:
        """Node id -> state at the last judgement: what the listeners were told. Heard of is enough to be in it."""
        return dict(self._states)

    def is_alive(self, node: str, incarnation: str) -> bool:
        """Whether that incarnation still beats, or may (suspect)."""
        seen = self._seen.get(node)
        return seen is not None and seen.incarnation == incarnation and self.state_of(node) in ALIVE

    def is_gone(self, node: str, incarnation: str) -> bool:
        """Whether that incarnation is certainly not beating: silent for long enough *while we listened*."""
        seen = self._seen.get(node)
        if seen is not None and seen.incarnation == incarnation:
            return self.state_of(node) in (GONE, LEFT)
        if seen is not None and seen.recorded:
            return True
        patience_s = self._config.heartbeat_interval_s * self._config.gone_after_missed
        return self._bus.connected and self._clock() - self._listening_since > patience_s

    def is_present(self, node: str, incarnation: str) -> bool:
        """Whether that is the node's latest incarnation, alive or not."""
        seen = self._seen.get(node)
        return seen is not None and seen.incarnation == incarnation

    def held_by(self, node: str) -> tuple[Held, ...]:
        """The deliveries the node's present incarnation announced last."""
        seen, held = self._seen.get(node), self._decoded(self._held.get(node))
        if held is None or seen is None or held.incarnation != seen.incarnation:
            return ()
        return held.held

    def former_holders(self) -> dict[tuple[str, str], tuple[Held, ...]]:
        """(node, replaced incarnation) -> what it had announced; `forget_former` when it is given back."""
        decoded = {key: self._decoded(data) for key, data in self._former.items()}
        return {key: one.held for key, one in decoded.items() if one is not None and one.incarnation == key[1]}

    def forget_former(self, node: str, incarnation: str) -> None:
        """What that replaced incarnation held has been given back."""
        self._former.pop((node, incarnation), None)

    def _decoded(self, data: bytes | None) -> HeldSet | None:
        if data is None:
            return None
        try:
            return messages.decode_held(data)
        except msgspec.MsgspecError:
            return None

    def seen(self) -> dict[str, PeerState]:
        """Everything known of everybody, by node id (do not change it)."""
        return self._seen

    def members(self) -> tuple[Member, ...]:
        """Record, state and last heartbeat of every node that has a record."""
        states = self._verdicts()
        return tuple(
            Member(record, states[node], self._heartbeats.get(node))
            for node, record in sorted(self._records.items())
            if node in states
        )

    def view(self, leader: str = "") -> tuple[NodeView, ...]:
        """Every node for people, by name; `master` is the node id of the master."""
        now, views = self._clock(), []
        for one in self.members():
            heard_at = self._seen[one.record.id].heard_at
            views.append(node_view(one, now - heard_at if heard_at >= 0 else -1.0, one.record.id == leader))
        return tuple(sorted(views, key=lambda view: (view.name, view.id)))
