"""Who is master: the loop beside `mesh/leader/lease.py`, run by every node.

A hint that the key changed, or that somebody died, wakes it; it also looks by itself. What it promises: at
most one node at a time believes `is_master`, even after a freeze or a cut. A holder that could not renew stops
at two thirds of the TTL on its own clock, and one whose connection broke is silent until it has read the lease
again; both are checked at every question, not only in the loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from mesh import coordination, messages, subjects
from mesh.bus.errors import WrongSequence
from mesh.config import MeshConfig
from mesh.errors import QueztlError
from mesh.leader import journal, lease
from mesh.supervision import wait_until_set

if TYPE_CHECKING:
    from mesh.bus.client import Bus
    from mesh.membership.registry import Registry

log = logging.getLogger(__name__)

#: Who does not know what dead nodes held leaves the lease of a dead master to its heirs for this long, seconds.
HEIRS_FIRST_S = 1.5

#: Whether a bus server still has a connection of (node, incarnation).
IsConnected = Callable[[str, str], Awaitable[bool]]


class Election:
    """One node's part in electing the master. `run()` until cancelled, then `resign()`."""

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
        """`is_connected` None: a holder that no longer beats is not asked for its connection."""
        self._bus, self._me, self._config, self._registry = bus, (me, incarnation), config, registry
        self._kv = bus.kv(subjects.KV_LEASE)
        self._is_connected, self._clock = is_connected, clock
        self.on_elected: list[Callable[[int], None]] = [on_elected] if on_elected else []
        self.on_lost: list[Callable[[], None]] = [on_lost] if on_lost else []
        self._seen = lease.LeaseObservation(since=clock())
        self._said = b""
        """What I last wrote, or wanted to."""
        self._term: lease.Term | None = None
        self._read_in_epoch = 0
        self._resigned = False
        self._gone_since = clock()
        """Until when the holder was not gone."""
        self._telling: asyncio.Task[None] | None = None
        self._look = asyncio.Event()

    # --- what can be asked --------------------------------------------------------------------------
    @property
    def fence(self) -> int:
        """My fencing number while I am master, else 0."""
        term = self._term
        if term is None or self._bus.epoch != self._read_in_epoch or not self._bus.connected:
            return 0
        return term.fence if lease.is_held(term, self._config, self._clock()) else 0

    @property
    def is_leader(self) -> bool:
        """Whether I may act as master right now."""
        return self.fence != 0

    @property
    def leader(self) -> str:
        """Node id of the master as last read, "" when there is none."""
        return self._seen.node

    @property
    def leader_fence(self) -> int:
        """My fence while I am master, else the lease's revision as last read: never lower than the fence."""
        return self.fence or self._seen.revision

    async def confirm(self) -> int:
        """My fence after re-reading the lease, 0 when it is not (or no longer provably) mine.

        To be called before anything that costs money or can't be undone. Raises: BusUnavailable.
        """
        term = self._term
        if term is None:
            return 0
        await self._read()
        if (self._seen.node, self._seen.incarnation) != self._me:
            self._step_down("another one holds the lease")
        return self.fence if self._term is not None and self._term.fence == term.fence else 0

    # --- the loop -----------------------------------------------------------------------------------
    async def run(self) -> None:
        """Contend, renew, step down; returns after `resign()`."""
        unlisten = self._registry.listen(self._on_change)
        watch = await self._kv.watch_writes(self._on_said)
        try:
            while not self._resigned:
                self._look.clear()
                try:
                    wait_s = await self._round()
                except QueztlError as error:
                    log.info("the lease could not be read or written just now: %s", error.message)
                    wait_s = self._config.lease_renew_s / 4
                await self._wait(wait_s)
        finally:
            unlisten()
            await watch.close()

    def _on_said(self, _: str, value: bytes) -> None:
        if value != self._said:  # my own renewal is no news, and its answer comes to me
            self._look.set()

    def _on_change(self, node: str, *_: str) -> None:
        # Of all others' comings and goings the lease need not be read: in a large mesh that is many a second.
        if self._seen.node in ("", node):
            self._look.set()

    async def resign(self) -> None:
        """Leave in order: the key is deleted, so that another one is master at once."""
        self._resigned = True
        self._look.set()
        term = self._term
        if term is None:
            return
        self._step_down("leaving")
        try:
            await self._kv.delete(subjects.LEASE_KEY, last=term.revision)
        except QueztlError as error:
            log.info("the lease could not be deleted and will run out by itself: %s", error.message)
        if self._telling is not None:
            _, pending = await asyncio.wait({self._telling}, timeout=1.0)
            for one in pending:
                one.cancel()

    async def _wait(self, wait_s: float) -> None:
        if self._term is not None:
            wait_s = min(wait_s, lease.self_stop_at(self._term, self._config) - self._clock())
        await wait_until_set(self._look, max(0.01, wait_s))

    async def _round(self) -> float:
        """One look and one step; seconds until the next one is due."""
        if self._term is not None and not lease.is_held(self._term, self._config, self._clock()):
            self._step_down("the lease could not be renewed in time")
        # A holder that hangs in a call must still stop itself in time.
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
            try:
                held = coordination.decode_lease(entry.value)
                node, incarnation = held.node, held.incarnation
            except msgspec.MsgspecError:
                # Written by something else: void like a silent holder's, once it has stood for the TTL.
                node, incarnation = "unreadable", "unreadable"
        revision = entry.revision if entry is not None else 0
        self._seen = lease.observe(self._seen, revision, node, incarnation, self._clock())
        self._read_in_epoch = epoch

    async def _holder_is_gone(self) -> bool:
        node, incarnation = self._seen.node, self._seen.incarnation
        if not node or (node, incarnation) == self._me or not self._registry.is_gone(node, incarnation):
            self._gone_since = self._clock()
            return False
        if not self._registry.heartbeat_relay.in_standby_set and self._clock() - self._gone_since < HEIRS_FIRST_S:
            return False
        if self._is_connected is None:
            return True
        try:
            return not await self._is_connected(node, incarnation)
        except QueztlError as error:
            log.info("whether %s is still connected could not be asked: %s", node, error.message)
            return False

    async def _act(self, action: lease.Action) -> float:
        config, sent_at = self._config, self._clock()
        if isinstance(action, lease.StepDown):
            self._step_down(action.reason)
            return 0.0
        if isinstance(action, lease.StandBy):
            return action.until - sent_at
        record = self._said = messages.encode(coordination.Lease(*self._me, at=time.time()))
        try:
            if isinstance(action, lease.Create):
                revision = await self._kv.create(subjects.LEASE_KEY, record)
            else:
                revision = await self._kv.update(subjects.LEASE_KEY, record, last=action.revision)
        except WrongSequence:
            # Somebody was quicker, or the answer to my own last write was lost: the next read tells.
            return 0.0
        if self._resigned:
            # The answer came after we left: nobody must wait for a master that is gone.
            await self._kv.delete(subjects.LEASE_KEY, last=revision)
            return 0.0
        self._seen = lease.observe(self._seen, revision, *self._me, self._clock())
        if isinstance(action, lease.Renew) and self._term is not None:
            self._term = lease.Term(self._term.fence, revision, sent_at)
        else:
            reason = action.reason if isinstance(action, lease.TakeOver) else "there was no master"
            await self._start_term(lease.Term(revision, revision, sent_at), reason)
        return config.lease_renew_s

    async def _start_term(self, term: lease.Term, reason: str) -> None:
        self._term = term
        log.info("this node is master now (fence %d): %s", term.fence, reason)
        for callback in list(self.on_elected):
            callback(term.fence)
        await journal.emit(self._bus, journal.LEADER_ELECTED, {"reason": reason}, node=self._me[0], fence=term.fence)

    def _step_down(self, reason: str) -> None:
        if self._term is None:
            return
        fence, self._term = self._term.fence, None
        log.info("this node is no longer master (fence %d): %s", fence, reason)
        for callback in list(self.on_lost):
            callback()
        telling = journal.emit(self._bus, journal.LEADER_LOST, {"reason": reason}, node=self._me[0], fence=fence)
        self._telling = asyncio.get_running_loop().create_task(telling, name="leader.lost")
