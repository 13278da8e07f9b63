"""Leader election: the loop beside `mesh/leader/lease.py`, run by every node.

It wakes when the lease key changes or a node dies, and also periodically. At most one node at a time has `is_leader`,
even after a suspended process or a network partition: a holder that can't renew steps down at two thirds of the TTL on
its own clock, and one whose connection broke is not leader until it has read the lease again. Both are checked at every
query, not only in the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from mesh import coordination, decoding, messages, subjects
from mesh.bus.errors import WrongSequence
from mesh.config import MeshConfig
from mesh.decoding import readable
from mesh.errors import QueztlError
from mesh.leader import journal, lease
from mesh.supervision import wait_until_set

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.membership.registry import Registry

log = logging.getLogger(__name__)

#: A node outside the standby set does not know what dead nodes held. It leaves a dead leader's lease to the standby set
#: for this long, seconds.
STANDBY_FIRST_S = 1.5

#: Returns whether a bus server still has a connection of (node, incarnation).
IsConnected = Callable[[str, str], Awaitable[bool]]


class Election:
    """The part of one node in electing the leader. `run()` until cancelled, then `resign()`."""

    def __init__(
        self,
        bus: Bus,
        me: str,
        incarnation: str,
        config: MeshConfig,
        registry: Registry,
        *,
        is_connected: IsConnected | None = None,
        on_elected: Callable[[int], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_connected` None: a holder without heartbeats counts as gone whether or not it is connected."""
        self._bus, self._me, self._config, self._registry = bus, (me, incarnation), config, registry
        self._kv = bus.kv(subjects.KV_LEASE)
        self._is_connected, self._clock = is_connected, clock
        self.on_elected: list[Callable[[int], None]] = [on_elected] if on_elected else []
        self.on_lost: list[Callable[[], None]] = [on_lost] if on_lost else []
        self._seen = lease.LeaseObservation(since=clock())
        self._last_written = b""
        """The record that this node wrote last, or tried to write."""
        self._term: lease.Term | None = None
        self._read_in_epoch = 0
        self._resigned = False
        self._holder_present_at = clock()
        """When the holder was last known not to be gone."""
        self._reporting: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    # --- queries ------------------------------------------------------------------------------------
    @property
    def fence(self) -> int:
        """This node's fencing number while it is leader, else 0."""
        term = self._term
        if term is None or self._bus.epoch != self._read_in_epoch or not self._bus.connected:
            return 0
        return term.fence if lease.is_held(term, self._config, self._clock()) else 0

    @property
    def is_leader(self) -> bool:
        """Whether this node may act as leader right now."""
        return self.fence != 0

    @property
    def leader(self) -> str:
        """Node id of the leader as last read; "" when there is none."""
        return self._seen.node

    @property
    def leader_fence(self) -> int:
        """This node's fence while it is leader, else the revision of the lease as last read: never below the fence."""
        return self.fence or self._seen.revision

    async def confirm(self) -> int:
        """The fence after reading the lease again; 0 when this node is not provably leader.

        Call it before any action that costs money or can't be undone. Raises: BusUnavailable.
        """
        term = self._term
        if term is None:
            return 0
        await self._read()
        if (self._seen.node, self._seen.incarnation) != self._me:
            self._step_down("another node holds the lease")
        return self.fence if self._term is not None and self._term.fence == term.fence else 0

    # --- the loop -----------------------------------------------------------------------------------
    async def run(self) -> None:
        """Contend for the lease, renew it, step down; returns after `resign()`."""
        unlisten = self._registry.listen(self._on_change)
        watch = await self._kv.watch_writes(self._on_write)
        try:
            while not self._resigned:
                self._wake.clear()
                try:
                    wait_s = await self._step()
                except QueztlError as error:
                    log.info("could not read or write the lease: %s", error.message)
                    wait_s = self._config.lease_renew_s / 4
                await self._wait(wait_s)
        finally:
            unlisten()
            await watch.close()

    def _on_write(self, _: str, value: bytes) -> None:
        if value != self._last_written:  # this node's own renewal is reported by its answer
            self._wake.set()

    def _on_change(self, node: str, *_: str) -> None:
        # Ignore membership changes of nodes other than the holder: in a large mesh there are many each second.
        if self._seen.node in ("", node):
            self._wake.set()

    async def resign(self) -> None:
        """Step down and delete the key, so that another node can be elected at once."""
        self._resigned = True
        self._wake.set()
        term = self._term
        if term is None:
            return
        self._step_down("this node leaves")
        try:
            await self._kv.delete(subjects.LEASE_KEY, last=term.revision)
        except QueztlError as error:
            log.info("could not delete the lease, it expires by itself: %s", error.message)
        if self._reporting is not None:
            _, pending = await asyncio.wait({self._reporting}, timeout=1.0)
            for task in pending:
                task.cancel()

    async def _wait(self, wait_s: float) -> None:
        if self._term is not None:
            wait_s = min(wait_s, lease.self_stop_at(self._term, self._config) - self._clock())
        await wait_until_set(self._wake, max(0.01, wait_s))

    async def _step(self) -> float:
        """Read the lease and take one action; returns the seconds until the next step is due."""
        if self._term is not None and not lease.is_held(self._term, self._config, self._clock()):
            self._step_down("the lease could not be renewed in time")
        # A holder that hangs in a call must still step down in time.
        limit_s = self._config.lease_ttl_s
        if self._term is not None:
            limit_s = lease.self_stop_at(self._term, self._config) - self._clock()
        try:
            async with asyncio.timeout(limit_s):
                await self._read()
                gone = self._term is None and await self._holder_is_gone()
                action = lease.decide(self._seen, self._term, self._me, gone, self._config, self._clock())
                return await self._act(action)
        except TimeoutError:
            return 0.0

    async def _read(self) -> None:
        epoch = self._bus.epoch
        entry = await self._kv.get(subjects.LEASE_KEY)
        node = incarnation = ""
        if entry is not None:
            held = readable(decoding.lease, entry)
            # What can't be read is treated as a silent holder's, so it is void after the TTL.
            node, incarnation = (held.node, held.incarnation) if held else ("unreadable", "unreadable")
        revision = entry.revision if entry is not None else 0
        self._bus.revisions(subjects.KV_LEASE).observe(revision)
        self._seen = lease.observe(self._seen, revision, node, incarnation, self._clock())
        self._read_in_epoch = epoch

    async def _holder_is_gone(self) -> bool:
        node, incarnation = self._seen.node, self._seen.incarnation
        if not node or (node, incarnation) == self._me or not self._registry.is_gone(node, incarnation):
            self._holder_present_at = self._clock()
            return False
        gone_s = self._clock() - self._holder_present_at
        if not self._registry.heartbeat_relay.in_standby_set and gone_s < STANDBY_FIRST_S:
            return False
        if self._is_connected is None:
            return True
        try:
            return not await self._is_connected(node, incarnation)
        except QueztlError as error:
            log.info("could not check whether %s is still connected: %s", node, error.message)
            return False

    async def _act(self, action: lease.Action) -> float:
        config, sent_at = self._config, self._clock()
        if isinstance(action, lease.StepDown):
            self._step_down(action.reason)
            return 0.0
        if isinstance(action, lease.StandBy):
            return action.until - sent_at
        fence = self._term.fence if isinstance(action, lease.Renew) and self._term is not None else 0
        record = self._last_written = messages.encode(coordination.Lease(*self._me, at=time.time(), fence=fence))
        try:
            if isinstance(action, lease.Create):
                revision = await self._kv.create(subjects.LEASE_KEY, record)
            else:
                revision = await self._kv.update(subjects.LEASE_KEY, record, last=action.revision)
        except WrongSequence:
            # Another node was first, or the answer to this node's last write was lost: the next read shows which.
            return 0.0
        if self._resigned:
            # The answer came after `resign`: delete the lease, so that no node waits for this one.
            await self._kv.delete(subjects.LEASE_KEY, last=revision)
            return 0.0
        self._bus.revisions(subjects.KV_LEASE).observe(revision)
        self._seen = lease.observe(self._seen, revision, *self._me, self._clock())
        if isinstance(action, lease.Renew) and self._term is not None:
            self._term = lease.Term(self._term.fence, revision, sent_at)
        else:
            reason = action.reason if isinstance(action, lease.TakeOver) else "there was no leader"
            await self._start_term(lease.Term(revision, revision, sent_at), reason)
        return config.lease_renew_s

    async def _start_term(self, term: lease.Term, reason: str) -> None:
        self._term = term
        log.info("this node is leader now (fence %d): %s", term.fence, reason)
        for callback in list(self.on_elected):
            callback(term.fence)
        await journal.emit(self._bus, journal.LEADER_ELECTED, {"reason": reason}, node=self._me[0], fence=term.fence)

    def _step_down(self, reason: str) -> None:
        if self._term is None:
            return
        fence, self._term = self._term.fence, None
        log.info("this node is no longer leader (fence %d): %s", fence, reason)
        for callback in list(self.on_lost):
            callback()
        report = journal.emit(self._bus, journal.LEADER_LOST, {"reason": reason}, node=self._me[0], fence=fence)
        self._reporting = asyncio.get_running_loop().create_task(report, name="leader.lost")


async def leading_fence(bus: Bus) -> int:
    """The fence of the leader, as the bus has it now; 0 when nobody leads. Raises: BusUnavailable."""
    entry = await bus.kv(subjects.KV_LEASE).get(subjects.LEASE_KEY)
    held = readable(decoding.lease, entry)
    return 0 if entry is None or held is None else held.fence or entry.revision
