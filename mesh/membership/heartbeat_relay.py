"""How a node hears everybody's heartbeats: the master itself, the others from the master, many in one message.

Were everybody to hear everybody, N nodes would make the bus deliver N x N messages an interval, and fill its network
at some hundreds of nodes. So the master passes on what it heard, twice an interval: the roll. A node that hears no
roll for two seconds (there is no master, or it is dying) listens to all beats itself until one comes. Judging is each
node's own; while it waits for a roll, nobody's silence counts.

What nodes say they hold is heard by the master and its heirs: the nodes that take over first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from mesh import messages, subjects
from mesh.config import MeshConfig
from mesh.membership.member import GONE, LEFT, UP
from mesh.messages import HeartbeatDigest

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription

log = logging.getLogger(__name__)

#: Rolls in a heartbeat interval.
ROLLS_A_BEAT = 2
#: A node that missed so many rolls in a row listens itself. Much sooner, and a machine that is out of breath for a
#: moment would be given N times as much to do.
PATIENCE = 8
#: Beats in one message of a roll: some 100 KB.
PIECE = 400
#: So many nodes, beside the master, hear who holds what.
STANDBY_NODES = 3


def digest_every_s(config: MeshConfig) -> float:
    """How often the master calls the roll."""
    return config.heartbeat_interval_s / ROLLS_A_BEAT


def listens_itself(leads: bool, rolled_at: float, now: float, config: MeshConfig) -> bool:
    """Whether a node must hear all beats by itself; `rolled_at`: when it last heard a roll. Pure."""
    return leads or now - rolled_at > PATIENCE * digest_every_s(config)


def standby_set(states: Mapping[str, str], leader: str) -> frozenset[str]:
    """Who takes over first should the master die: the first nodes by id that are up. Pure."""
    return frozenset(sorted(node for node, state in states.items() if state == UP and node != leader)[:STANDBY_NODES])


def somebody_listens(states: Mapping[str, str], leader: str) -> bool:
    """Whether there is anybody to call the roll for. Pure."""
    return any(node != leader and state not in (GONE, LEFT) for node, state in states.items())


def pieces(heartbeats: list[bytes], size: int = PIECE) -> Iterator[tuple[bytes, ...]]:
    """The beats of a roll, so many a message; one empty message when there are none. Pure."""
    for start in range(0, max(1, len(heartbeats)), size):
        yield tuple(heartbeats[start : start + size])


class HeartbeatRelay:
    """One node's ears. `await start()`, then `await look(now)` now and then, `await close()`."""

    def __init__(
        self,
        bus: Bus,
        config: MeshConfig,
        on_heartbeat: Callable[[bytes], None],
        on_held: Callable[[Message], None],
        on_alone: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """`on_beat` is given each beat, `on_held` each announcement of held work; `on_alone(master)` is called when
        the roll of that master stays away."""
        self._bus, self._config, self._clock = bus, config, clock
        self._on_heartbeat, self._on_held, self._on_alone = on_heartbeat, on_held, on_alone
        self._all: Subscription | None = None
        self._held: Subscription | None = None
        self._others: list[Subscription] = []
        self._changing = asyncio.Lock()
        self._leads = False
        self._fence = 0
        self.leader = ""
        """Whose roll was heard last."""
        self.in_standby_set = True
        """Whether this node is one of the master's heirs, as far as it knows."""
        self._rolled_at = float("-inf")
        self._fresh: dict[str, bytes] = {}
        """Subject -> the last beat there since the last roll, while this node leads."""

    async def start(self) -> None:
        """Listen: to everybody, until a roll is heard. Raises: BusUnavailable."""
        self._others = [
            await self._bus.subscribe(subjects.HEARTBEAT_DIGEST, self._on_digest),
            await self._bus.subscribe(subjects.ALL_DEATH_NOTICES, lambda message: self._on_heartbeat(message.data)),
        ]
        self._held = await self._bus.subscribe(subjects.ALL_HELD, self._on_held)
        self._all = await self._bus.subscribe(subjects.ALL_HEARTBEATS, self._hear)

    def heard_until(self, now: float) -> float:
        """Up to when silence means something: `now`, or while it waits for the master's roll, when that was due."""
        return now if self._all is not None else min(now, self._rolled_at + digest_every_s(self._config))

    async def look(self) -> None:
        """Begin or cease to listen to everybody, as it is called for. Waits for no answer."""
        async with self._changing:
            itself = listens_itself(self._leads, self._rolled_at, self._clock(), self._config)
            if itself and self._all is None:
                if not self._leads:
                    self._on_alone(self.leader)
                self._all = await self._bus.subscribe(subjects.ALL_HEARTBEATS, self._hear, wait=False)
            elif not itself and self._all is not None:
                ended, self._all = self._all, None
                await ended.close()
            keeps = self._leads or self.in_standby_set
            if keeps and self._held is None:
                self._held = await self._bus.subscribe(subjects.ALL_HELD, self._on_held, wait=False)
            elif not keeps and self._held is not None:
                ended, self._held = self._held, None
                await ended.close()

    async def close(self) -> None:
        """Stop listening."""
        for subscription in (*self._others, *filter(None, (self._all, self._held))):
            await subscription.close()
        self._others, self._all, self._held = [], None, None

    def _hear(self, message: Message) -> None:
        if self._leads:
            self._fresh[message.subject] = message.data
        self._on_heartbeat(message.data)

    def _on_digest(self, message: Message) -> None:
        try:
            digest = messages.decode_digest(message.data)
        except msgspec.MsgspecError as error:
            log.debug("a roll can't be read: %s", error)
            return
        if self._leads or digest.fence < self._fence:
            return
        self._fence, self.leader, self._rolled_at = digest.fence, digest.leader, self._clock()
        for heartbeat in digest.heartbeats:
            self._on_heartbeat(heartbeat)

    # --- the master's part --------------------------------------------------------------------------
    async def lead(self, leads: bool) -> None:
        """This node is (or is no longer) the one that hears for all. Raises: BusUnavailable."""
        self._leads = leads
        self._fresh.clear()
        await self.look()

    def publish_digest(self, leader: str, fence: int, states: Mapping[str, str]) -> None:
        """Pass on what was heard since the last time, if there is anybody to hear it. Raises: BusUnavailable."""
        heartbeats = list(self._fresh.values())
        self._fresh.clear()
        if not somebody_listens(states, leader):
            return
        for piece in pieces(heartbeats):
            self._bus.send(
                subjects.HEARTBEAT_DIGEST,
                messages.encode(HeartbeatDigest(fence=fence, leader=leader, heartbeats=piece)),
            )
