"""Distribution of heartbeats: the leader receives all of them and republishes them as digests for the other nodes.

If all nodes subscribed to all heartbeats, N nodes would make the bus deliver N x N messages per interval, and saturate
its network at some hundreds of nodes. So the leader republishes the heartbeats it received, twice per interval, in
digests. A node that receives no digest for two seconds (there is no leader, or it is failing) subscribes to all
heartbeats itself until a digest arrives. Each node judges the others on its own; while it waits for a digest, their
silence does not count.

The announcements of held deliveries are received by the leader and the standby set: the nodes that take over first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from mesh import decoding, messages, subjects
from mesh.config import MeshConfig
from mesh.decoding import Unreadable
from mesh.membership.member import GONE, LEFT, UP
from mesh.messages import HeartbeatDigest

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription

log = logging.getLogger(__name__)

#: Digests per heartbeat interval.
DIGESTS_PER_HEARTBEAT = 2
#: After this many missed digests a node subscribes to all heartbeats. A smaller number would overload a busy node: it
#: would suddenly receive N times as many messages.
MISSED_DIGESTS = 8
#: Heartbeats per digest message, some 100 KB.
DIGEST_SIZE = 400
#: Number of nodes, beside the leader, that receive the announcements of held deliveries.
STANDBY_NODES = 3


def digest_every_s(config: MeshConfig) -> float:
    """The period of the leader's digests, seconds."""
    return config.heartbeat_interval_s / DIGESTS_PER_HEARTBEAT


def needs_all_heartbeats(leads: bool, digest_at: float, now: float, config: MeshConfig) -> bool:
    """Whether a node must subscribe to all heartbeats; `digest_at`: when it received the last digest. Pure."""
    return leads or now - digest_at > MISSED_DIGESTS * digest_every_s(config)


def is_superseded(fence: int, newest: int, digest_at: float, now: float, config: MeshConfig) -> bool:
    """Whether a digest is of an earlier leader than the last one. `newest`: the highest fence, `digest_at`: when its
    last digest came. One that went silent leads no more, or its lease was lost with the fence. Pure."""
    return fence < newest and not needs_all_heartbeats(False, digest_at, now, config)


def standby_set(states: Mapping[str, str], leader: str) -> frozenset[str]:
    """The nodes that take over first if the leader dies: the first ones by id that are up. Pure."""
    return frozenset(sorted(node for node, state in states.items() if state == UP and node != leader)[:STANDBY_NODES])


def has_followers(states: Mapping[str, str], leader: str) -> bool:
    """Whether any other node receives the digests. Pure."""
    return any(node != leader and state not in (GONE, LEFT) for node, state in states.items())


def batches(heartbeats: list[bytes], size: int = DIGEST_SIZE) -> Iterator[tuple[bytes, ...]]:
    """The heartbeats of a digest, at most `size` per message; one empty batch when there are none. Pure."""
    for start in range(0, max(1, len(heartbeats)), size):
        yield tuple(heartbeats[start : start + size])


class HeartbeatRelay:
    """The heartbeat subscriptions of one node: `start()`, then `adjust()` periodically, `close()`."""

    def __init__(
        self,
        bus: Bus,
        config: MeshConfig,
        on_heartbeat: Callable[[bytes], None],
        on_held: Callable[[Message], None],
        on_alone: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        """`on_heartbeat` is called with each heartbeat, `on_held` with each announcement of held deliveries, and
        `on_alone(leader)` when the digests of that leader stay away."""
        self._bus, self._config, self._clock = bus, config, clock
        self._on_heartbeat, self._on_held, self._on_alone = on_heartbeat, on_held, on_alone
        self._all: Subscription | None = None
        self._held: Subscription | None = None
        self._others: list[Subscription] = []
        self._changing = asyncio.Lock()
        self._leads = False
        self._fence = 0
        self.leader = ""
        """The sender of the last digest."""
        self.in_standby_set = True
        """Whether this node is in the standby set, as far as it knows."""
        self._digest_at = float("-inf")
        self._fresh: dict[str, bytes] = {}
        """Subject -> the last heartbeat since the last digest, while this node leads."""

    async def start(self) -> None:
        """Subscribe, to all heartbeats until a digest arrives. Raises: BusUnavailable."""
        self._others = [
            await self._bus.subscribe(subjects.HEARTBEAT_DIGEST, self._on_digest),
            await self._bus.subscribe(subjects.ALL_DEATH_NOTICES, lambda message: self._on_heartbeat(message.data)),
        ]
        self._held = await self._bus.subscribe(subjects.ALL_HELD, self._on_held)
        self._all = await self._bus.subscribe(subjects.ALL_HEARTBEATS, self._on_any_heartbeat)

    def heard_until(self, now: float) -> float:
        """The time up to which silence counts: `now`, or the time when the digest was due that it waits for."""
        return now if self._all is not None else min(now, self._digest_at + digest_every_s(self._config))

    async def adjust(self) -> None:
        """Subscribe to all heartbeats or unsubscribe, as needed. Does not wait for the server."""
        async with self._changing:
            needed = needs_all_heartbeats(self._leads, self._digest_at, self._clock(), self._config)
            if needed and self._all is None:
                if not self._leads:
                    self._on_alone(self.leader)
                self._all = await self._bus.subscribe(subjects.ALL_HEARTBEATS, self._on_any_heartbeat, wait=False)
            elif not needed and self._all is not None:
                ended, self._all = self._all, None
                await ended.close()
            hears_held = self._leads or self.in_standby_set
            if hears_held and self._held is None:
                self._held = await self._bus.subscribe(subjects.ALL_HELD, self._on_held, wait=False)
            elif not hears_held and self._held is not None:
                ended, self._held = self._held, None
                await ended.close()

    async def close(self) -> None:
        """End all subscriptions."""
        for subscription in (*self._others, *filter(None, (self._all, self._held))):
            await subscription.close()
        self._others.clear()
        self._all = self._held = None

    def _on_any_heartbeat(self, message: Message) -> None:
        if self._leads:
            self._fresh[message.subject] = message.data
        self._on_heartbeat(message.data)

    def _on_digest(self, message: Message) -> None:
        digest = decoding.digest(message.data)
        if isinstance(digest, Unreadable):
            log.debug("a heartbeat digest is ignored: it %s", digest.reason)
            return
        if self._leads or is_superseded(digest.fence, self._fence, self._digest_at, self._clock(), self._config):
            return
        if not self._bus.revisions(subjects.KV_LEASE).has_given(digest.fence):
            log.debug(
                "a heartbeat digest with a fence that no leader has is ignored, or comes before the lease was read"
            )
            return
        self._fence, self.leader, self._digest_at = digest.fence, digest.leader, self._clock()
        for heartbeat in digest.heartbeats:
            self._on_heartbeat(heartbeat)

    # --- the leader's part --------------------------------------------------------------------------
    async def lead(self, leads: bool) -> None:
        """This node becomes leader, or is no longer. Raises: BusUnavailable."""
        self._leads = leads
        self._fresh.clear()
        await self.adjust()

    def publish_digest(self, leader: str, fence: int, states: Mapping[str, str]) -> None:
        """Publish the heartbeats since the last digest, if there are followers. Raises: BusUnavailable."""
        heartbeats = list(self._fresh.values())
        self._fresh.clear()
        if not has_followers(states, leader):
            return
        for batch in batches(heartbeats):
            self._bus.send(
                subjects.HEARTBEAT_DIGEST,
                messages.encode(HeartbeatDigest(fence=fence, leader=leader, heartbeats=batch)),
            )
