"""Gets work: keeps pulls open on the lanes `node/work/pull_plan.py` says, and hands over what comes.

Lanes are found by wake-up hints (at once) and by looking (every `lane_scan_s`); what each one is asked for is
decided in `plan.share`. One inbox holds all pulls; each pull has a number, which the server's status messages name.
The server forgets the pulls of an inbox that nobody listens to any more: so they can be taken back, all at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mesh import subjects
from mesh.bus.replies import PullEnd, parse_ack_subject, pull_end
from mesh.bus.streams import GROUP, list_lanes
from mesh.coordination import decode_pool
from mesh.errors import QueztlError
from mesh.lanes import Lane, is_open, pull_priority, pulls_from, region_of
from mesh.messages import NodeRecord
from node.work import pull_plan

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription

log = logging.getLogger(__name__)
#: The server answers a pull within its expiry; a pull this much older was lost on the way.
LOST_AFTER_S = 0.5
#: A lane that has work answers a pull at once: when nothing came for this long, nothing waits there.
IDLE_AFTER_S = 0.05
#: Bytes one pull may bring.
MAX_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class _LaneState:
    """What the puller remembers of one lane."""

    backlog: int = 0
    served_at: float = float("-inf")
    waiting_since: float = 0.0
    asked_at: float = float("-inf")
    pulls: dict[int, list[float]] = field(default_factory=dict)
    """number -> [asked and not received, expires at (monotonic)]"""

    @property
    def asked(self) -> int:
        return int(sum(pull[0] for pull in self.pulls.values()))

    def is_idle(self, now: float) -> bool:
        """Whether pulls stand there that nothing has come of for a while."""
        return bool(self.pulls) and now - max(self.asked_at, self.served_at) > IDLE_AFTER_S


@dataclass(frozen=True, slots=True)
class Load:
    """What the node holds, for the plan."""

    slots: int
    free_slots: int
    unstarted: tuple[tuple[float, int], ...]
    means_s: dict[str, float]


class Puller:
    """Pulls for one node. `on_message(message, stream_seq, delivered)` takes each delivery; it must not block."""

    def __init__(
        self,
        bus: Bus,
        me: Callable[[], NodeRecord],
        load: Callable[[], Load],
        rank: Callable[[str], int],
        on_message: Callable[[Message, int, int], None],
    ) -> None:
        self._bus, self._me, self._load, self._rank, self._on_message = bus, me, load, rank, on_message
        self._config = bus.config
        self._lanes: dict[Lane, _LaneState] = {}
        self._pools: dict[str, dict[str, object]] = {}
        self._box = bus.new_inbox()
        self._number = 0
        self._lane_of_pull: dict[int, Lane] = {}
        self._subscriptions: list[Subscription] = []
        self._scanner: asyncio.Task[None] | None = None
        self._taking_back: asyncio.Task[None] | None = None
        self._planning_again: asyncio.TimerHandle | None = None
        self._planned = False
        self._open = False
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Begin to pull."""
        self._subscriptions = [
            await self._bus.subscribe(f"{self._box}.*", self._on_delivery),
            await self._bus.subscribe(subjects.ALL_WAKES, self._on_wake),
        ]
        self._bus.on_back.append(self._on_back)
        self._open = True
        await self._look_for_lanes()
        self._scanner = asyncio.create_task(self._scan_now_and_then(), name="lane scan")

    def close_ingress(self) -> None:
        """Ask for nothing more; what was asked for may still come for up to `pull_expires_s`."""
        self._open = False

    @property
    def asked(self) -> int:
        """Tasks asked for and not received."""
        return sum(lane.asked for lane in self._lanes.values())

    async def stop(self) -> None:
        """Stop listening."""
        self._open = False
        for one in (self._scanner, self._taking_back, self._planning_again):
            if one:
                one.cancel()
        if self._on_back in self._bus.on_back:
            self._bus.on_back.remove(self._on_back)
        for subscription in self._subscriptions:
            await subscription.close()

    # --- deciding -----------------------------------------------------------------------------------
    def plan_soon(self) -> None:
        """Something changed (a slot is free, a message came): plan once this round of callbacks is over."""
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self._plan)

    def _plan(self) -> None:
        self._planned = False
        if not self._open or not self._bus.connected or self._taking_back is not None:
            return
        now = self._loop.time()
        load = self._load()
        views = [self._view(lane, state, load, now) for lane, state in self._lanes.items()]
        facts: dict[str, Any] = {
            "slots": load.slots,
            "free_slots": load.free_slots,
            "unstarted": load.unstarted,
            "now": now,
            "config": self._config,
        }
        asks = pull_plan.share(views, **facts)
        starved = pull_plan.starved(views, asks)
        if starved and pull_plan.should_take_back(starved, views, **facts):
            self._taking_back = self._loop.create_task(self._take_back(), name="take back pulls")
            return
        for ask in asks:
            self._pull(ask, now)
        if starved and self._planning_again is None:
            self._planning_again = self._loop.call_later(IDLE_AFTER_S, self._plan_again)

    def _plan_again(self) -> None:
        """What keeps a lane from being asked may be idle by now."""
        self._planning_again = None
        self.plan_soon()

    async def _take_back(self) -> None:
        """End every pull, and plan afresh once nothing can come of them any more."""
        now = self._loop.time()
        idle = [state for state in self._lanes.values() if state.is_idle(now)]
        old, box = self._subscriptions[0], self._bus.new_inbox()
        try:
            self._subscriptions[0] = await self._bus.subscribe(f"{box}.*", self._on_delivery)
            self._box = box
            await old.drain()
            for state in idle:
                if state.served_at < now:
                    state.backlog, state.waiting_since = 0, 0.0
            for number in list(self._lane_of_pull):
                self._forget(number)
        except QueztlError as error:
            log.debug("pulls could not be taken back, and run out by themselves: %s", error)
        finally:
            self._taking_back = None
            self.plan_soon()

    def _view(self, lane: Lane, state: _LaneState, load: Load, now: float) -> pull_plan.LaneView:
        return pull_plan.LaneView(
            lane,
            load.means_s.get(lane[0], 0.0),
            state.backlog,
            state.asked,
            state.served_at,
            state.waiting_since,
            state.is_idle(now),
            far=region_of(lane[1]) not in ("", self._me().region),
        )

    def _pull(self, ask: pull_plan.Ask, now: float) -> None:
        self._number += 1
        expires_s = self._config.pull_expires_s
        state = self._lanes[ask.lane]
        state.asked_at, state.pulls[self._number] = now, [ask.batch, now + expires_s + LOST_AFTER_S]
        self._lane_of_pull[self._number] = ask.lane
        self._bus.pull(
            subjects.WORK,
            subjects.lane_durable(*ask.lane),
            f"{self._box}.{self._number}",
            batch=ask.batch,
            expires_s=expires_s,
            max_bytes=MAX_BYTES,
            group=GROUP,
            priority=pull_priority(ask.lane[1], self._me().region, self._rank(ask.lane[0])),
        )

    # --- what comes ---------------------------------------------------------------------------------
    def _on_delivery(self, message: Message) -> None:
        if not message.reply:
            self._on_status(message)
            return
        delivered, stream_seq, pending = parse_ack_subject(message.reply)
        kind, pool, urgency = message.subject.split(".")[1:4]
        state = self._lanes.get((kind, pool, urgency))
        if state is not None:
            now = self._loop.time()
            # What was given back is in no count: where one of those comes, more may wait.
            state.served_at, state.backlog = now, max(pending, 1 if delivered > 1 else 0)
            state.waiting_since = now if pending else 0.0
            for number, pull in state.pulls.items():
                pull[0] -= 1
                if pull[0] <= 0:
                    self._forget(number)
                break
        self._on_message(message, stream_seq, delivered)
        self.plan_soon()

    def _on_status(self, message: Message) -> None:
        """The server ended a pull: it expired, or its lane is gone."""
        number = int(message.subject.rpartition(".")[2])
        lane = self._lane_of_pull.get(number)
        self._forget(number)
        end = pull_end(message)
        if lane in self._lanes and end is PullEnd.NO_CONSUMER:
            # The consumer is gone, or going: the scan or a hint brings the lane back if it returns.
            self._drop_lane(lane)
        elif lane in self._lanes and end is PullEnd.EXPIRED:
            self._lanes[lane].backlog = 0
            self._lanes[lane].waiting_since = 0.0
        self.plan_soon()

    def _forget(self, number: int) -> None:
        lane = self._lane_of_pull.pop(number, None)
        if lane is not None and lane in self._lanes:
            self._lanes[lane].pulls.pop(number, None)

    def _drop_lane(self, lane: Lane) -> None:
        state = self._lanes.pop(lane, None)
        for number in state.pulls if state else ():
            self._lane_of_pull.pop(number, None)

    def _on_wake(self, message: Message) -> None:
        kind, pool, urgency = message.subject.split(".")[1:4]
        lane = (kind, pool, urgency)
        if lane in self._lanes:
            self._woken(lane)
        elif is_open(pool) or pool.startswith("node-") or pool in self._pools:
            if self._may_pull(lane):
                self._woken(lane)
        else:
            task = self._loop.create_task(self._scan(), name="lane scan for a new pool")
            task.add_done_callback(lambda done: done.exception())

    def _woken(self, lane: Lane) -> None:
        state = self._lanes.setdefault(lane, _LaneState())
        now = self._loop.time()
        state.served_at = max(state.served_at, now - pull_plan.ACTIVE_S)
        if not state.backlog:
            state.backlog, state.waiting_since = 1, now
        self.plan_soon()

    async def _on_back(self) -> None:
        """After a reconnect: every pull in flight is lost."""
        for lane in list(self._lanes):
            self._lanes[lane].pulls.clear()
        self._lane_of_pull.clear()
        self.plan_soon()

    # --- looking ------------------------------------------------------------------------------------
    def _may_pull(self, lane: Lane) -> bool:
        kind, pool, _ = lane
        record = self._me()
        can = any(one.kind == kind and one.available for one in record.capabilities.kinds)
        return can and pulls_from(pool, self._pools.get(pool), record)

    async def _scan_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self._config.lane_scan_s)
            self._end_lost_pulls()
            if self._open and self._bus.connected and self._load().free_slots > 0:
                await self._look_for_lanes()
            self.plan_soon()

    async def _look_for_lanes(self) -> None:
        """`_scan`, and again later when the bus does not answer: hints come all the same."""
        try:
            await self._scan()
        except QueztlError as error:
            log.debug("could not look at the lanes: %s", error)

    def _end_lost_pulls(self) -> None:
        now = self._loop.time()
        for state in self._lanes.values():
            for number in [number for number, pull in state.pulls.items() if pull[1] < now]:
                self._forget(number)

    async def _scan(self) -> None:
        """Learn which lanes there are and what waits in them."""
        lanes = await list_lanes(self._bus)
        if any(lane[1] not in self._pools and lane[1].startswith("p-") for lane in lanes):
            for entry in await self._bus.kv(subjects.KV_POOLS).entries():
                pool = decode_pool(entry.value)
                self._pools[pool.name] = pool.requires
        now = self._loop.time()
        for lane in [lane for lane in self._lanes if lane not in lanes]:
            if not self._lanes[lane].pulls and now - self._lanes[lane].served_at > self._config.lane_scan_s:
                self._drop_lane(lane)
        for lane, info in lanes.items():
            if lane not in self._lanes and not self._may_pull(lane):
                continue
            state = self._lanes.setdefault(lane, _LaneState())
            if info.unacknowledged:
                # What others hold may come back, and counts in no backlog then: only a standing pull gets it.
                state.served_at = max(state.served_at, now - pull_plan.ACTIVE_S)
            state.backlog = info.waiting
            state.waiting_since = (state.waiting_since or now) if info.waiting else 0.0
        self.plan_soon()
