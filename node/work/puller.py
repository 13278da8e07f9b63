"""Pulls tasks: keeps pull requests open on the lanes that `node/work/pull_plan.py` chooses, and passes deliveries on.

The puller learns of lanes from wake-up hints (at once) and from a scan (every `lane_scan_s`); `pull_plan.plan_pulls`
decides how much to request from each. All pulls share one inbox; each has a number, which the server's status messages
name. The server ends the pulls of an inbox that has no subscriber: that is how all of them are cancelled at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mesh import decoding, subjects
from mesh.bus.client import Bus, Message, Subscription
from mesh.bus.replies import PullEnd, parse_ack_subject, pull_end
from mesh.bus.streams import GROUP, list_lanes
from mesh.decoding import readable_of
from mesh.errors import QueztlError
from mesh.kinds.table import KINDS
from mesh.lanes import ANY, Lane, cores_for, pull_priority, pulls_from, region_of
from mesh.messages import NodeRecord
from mesh.subjects import URGENCIES
from node.work import pull_plan

log = logging.getLogger(__name__)
#: The server answers a pull before it expires; one that is this much older was lost, seconds.
LOST_AFTER_S = 0.5
#: A lane with a backlog answers a pull at once: a pull without an answer for this long is idle, seconds.
IDLE_AFTER_S = 0.05
#: A lane with a task that this node can't run is left to the other nodes for this long, seconds.
AVOID_S = 4.0
#: The most that one pull may deliver, bytes.
MAX_BYTES = 16 * 1024 * 1024


@dataclass(slots=True)
class _LaneState:
    """What the puller knows of one lane. Times are monotonic; see `pull_plan.LaneView`."""

    backlog: int = 0
    served_at: float = float("-inf")
    waiting_since: float = 0.0
    requested_at: float = float("-inf")
    avoid_until: float = float("-inf")
    pulls: dict[int, list[float]] = field(default_factory=dict)
    """number -> [tasks requested and not received, when it expires]"""

    @property
    def requested(self) -> int:
        return int(sum(pull[0] for pull in self.pulls.values()))

    def is_idle(self, now: float) -> bool:
        """Whether its pulls have stood for IDLE_AFTER_S without a delivery."""
        return bool(self.pulls) and now - max(self.requested_at, self.served_at) > IDLE_AFTER_S


class Puller:
    """The pulls of one node."""

    def __init__(
        self,
        bus: Bus,
        record: Callable[[], NodeRecord],
        load: Callable[[], pull_plan.Load],
        rank: Callable[[str], int],
        on_message: Callable[[Message, int, int], None],
        others_take: Callable[[Lane, dict[str, Any]], bool] = lambda lane, requires: False,
    ) -> None:
        """`record()`: this node's record; `rank(kind)`: its rank in the placement plan.

        `on_message(message, stream_seq, delivered)` takes each delivery; it must not block. `others_take(lane,
        requires)`: whether a lane of such tasks is left to other nodes, when they would have to wait here.
        """
        self._others_take = others_take
        self._bus, self._record, self._load, self._rank, self._on_message = bus, record, load, rank, on_message
        self._config = bus.config
        self._lanes: dict[Lane, _LaneState] = {}
        self._pools: dict[str, dict[str, Any]] = {}
        self._inbox = bus.new_inbox()
        self._number = 0
        self._lane_of_pull: dict[int, Lane] = {}
        self._subscriptions: list[Subscription] = []
        self._scanner: asyncio.Task[None] | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._planning_again: asyncio.TimerHandle | None = None
        self._hint_scan: asyncio.Task[None] | None = None
        self._hint_scans: deque[float] = deque(maxlen=pull_plan.HINT_SCANS)
        self._hinted = self._planned = False
        self._open = False
        self._loop = asyncio.get_running_loop()

    async def start(self) -> None:
        """Begin to pull. Raises: BusUnavailable."""
        self._subscriptions = [
            await self._bus.subscribe(f"{self._inbox}.*", self._on_delivery),
            await self._bus.subscribe(subjects.ALL_WAKES, self._on_wake),
        ]
        self._bus.on_back.append(self._on_reconnect)
        self._open = True
        await self._try_scan()
        self._scanner = asyncio.create_task(self._scan_periodically(), name="lane scan")

    def stop_pulling(self) -> None:
        """Request no more tasks; requested ones may still arrive for up to `pull_expires_s`."""
        self._open = False

    def pull_again(self) -> None:
        """Request tasks again, after `stop_pulling`."""
        self._open = True
        self.plan_soon()

    async def stop(self) -> None:
        """End the subscriptions."""
        self._open = False
        for running in (self._scanner, self._cancelling, self._planning_again, self._hint_scan):
            if running is not None:
                running.cancel()
        if self._on_reconnect in self._bus.on_back:
            self._bus.on_back.remove(self._on_reconnect)
        for subscription in self._subscriptions:
            await subscription.close()

    # --- planning -----------------------------------------------------------------------------------
    def plan_soon(self) -> None:
        """A slot is free, or a message came: plan again in the next turn of the loop."""
        if not self._planned:
            self._planned = True
            self._loop.call_soon(self._plan)

    def avoid(self, subject: str) -> None:
        """This node got a task from that lane which it can't run: let other nodes get it."""
        kind, pool, urgency = subject.split(".")[1:4]
        state = self._lanes.get((kind, pool, urgency))
        if state is not None:
            state.avoid_until = self._loop.time() + AVOID_S

    def _plan(self) -> None:
        self._planned = False
        if not self._open or not self._bus.connected or self._cancelling is not None:
            return
        now = self._loop.time()
        load = self._load()
        views = [self._view(lane, state, load, now) for lane, state in self._lanes.items() if now > state.avoid_until]
        facts: dict[str, Any] = {
            "slots": load.slots,
            "free_slots": load.free_slots,
            "unstarted": load.unstarted,
            "now": now,
            "config": self._config,
        }
        requests = pull_plan.plan_pulls(views, **facts)
        starved = pull_plan.starved(views, requests)
        if starved and pull_plan.should_cancel_pulls(starved, views, **facts):
            self._cancelling = self._loop.create_task(self._cancel_pulls(), name="cancel pulls")
            return
        for request in requests:
            self._pull(request, now)
        if starved and self._planning_again is None:
            self._planning_again = self._loop.call_later(IDLE_AFTER_S, self._plan_again)

    def _plan_again(self) -> None:
        """The pulls that keep a starved lane waiting may be idle by now."""
        self._planning_again = None
        self.plan_soon()

    async def _cancel_pulls(self) -> None:
        """Cancel every pull, and plan again once they can't deliver any more."""
        now = self._loop.time()
        idle = [state for state in self._lanes.values() if state.is_idle(now)]
        old, inbox = self._subscriptions[0], self._bus.new_inbox()
        try:
            self._subscriptions[0] = await self._bus.subscribe(f"{inbox}.*", self._on_delivery)
            self._inbox = inbox
            await old.drain()
            for state in idle:
                if state.served_at < now:
                    state.backlog, state.waiting_since = 0, 0.0
            for number in list(self._lane_of_pull):
                self._forget(number)
        except QueztlError as error:
            log.debug("could not cancel the pulls, which expire by themselves: %s", error)
        finally:
            self._cancelling = None
            self.plan_soon()

    def _view(self, lane: Lane, state: _LaneState, load: pull_plan.Load, now: float) -> pull_plan.LaneView:
        spec, requires = KINDS.get(lane[0]), self._pools.get(lane[1], {})
        cores = cores_for(requires, spec.resources.cores, load.slots) if spec is not None else 1
        return pull_plan.LaneView(
            lane,
            load.means_s.get(lane[0], 0.0),
            state.backlog,
            state.requested,
            state.served_at,
            state.waiting_since,
            state.is_idle(now),
            far=region_of(lane[1]) not in ("", self._record().region),
            cores=cores,
            left=pull_plan.must_wait(cores, load.free_slots, load.busy_s) and self._others_take(lane, requires),
        )

    def _pull(self, request: pull_plan.PullRequest, now: float) -> None:
        self._number += 1
        expires_s = self._config.pull_expires_s
        state = self._lanes[request.lane]
        state.requested_at, state.pulls[self._number] = now, [request.batch, now + expires_s + LOST_AFTER_S]
        self._lane_of_pull[self._number] = request.lane
        self._bus.pull(
            subjects.WORK, subjects.lane_durable(*request.lane), f"{self._inbox}.{self._number}", batch=request.batch,
            expires_s=expires_s, max_bytes=MAX_BYTES, group=GROUP,
            priority=pull_priority(request.lane[1], self._record().region, self._rank(request.lane[0])),
        )  # fmt: skip

    # --- deliveries ---------------------------------------------------------------------------------
    def _on_delivery(self, message: Message) -> None:
        if not message.reply:
            self._on_status(message)
            return
        delivered, stream_seq, pending = parse_ack_subject(message.reply)
        kind, pool, urgency = message.subject.split(".")[1:4]
        state = self._lanes.get((kind, pool, urgency))
        if state is not None:
            now = self._loop.time()
            # Redelivered messages are not part of num_pending: where one comes, more may wait.
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
        """The server ended a pull: it expired, or the consumer of its lane is gone."""
        number = int(message.subject.rpartition(".")[2])
        lane = self._lane_of_pull.get(number)
        self._forget(number)
        end = pull_end(message)
        if lane in self._lanes and end is PullEnd.NO_CONSUMER:
            # If the lane comes back, the scan or a hint finds it.
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
            self._mark_woken(lane)
        elif urgency in URGENCIES and (pool == ANY or pool in self._pools):
            if self._may_pull(lane):
                self._mark_woken(lane)
        else:
            # A lane that may not even exist. However many such hints come, there is one scan at a time.
            self._hinted = True
            if self._hint_scan is None or self._hint_scan.done():
                self._hint_scan = self._loop.create_task(self._scan_for_hints(), name="lane scan for hints")

    async def _scan_for_hints(self) -> None:
        while self._hinted:
            await asyncio.sleep(pull_plan.scan_pause_s(self._hint_scans, self._loop.time()))
            self._hinted = False
            self._hint_scans.append(self._loop.time())
            await self._try_scan()

    def _mark_woken(self, lane: Lane) -> None:
        state = self._lanes.setdefault(lane, _LaneState())
        now = self._loop.time()
        state.served_at = max(state.served_at, now - pull_plan.ACTIVE_S)
        if not state.backlog:
            state.backlog, state.waiting_since = 1, now
        self.plan_soon()

    async def _on_reconnect(self) -> None:
        """Every pull was lost with the connection."""
        for lane in list(self._lanes):
            self._lanes[lane].pulls.clear()
        self._lane_of_pull.clear()
        self.plan_soon()

    # --- finding lanes ------------------------------------------------------------------------------
    def _may_pull(self, lane: Lane) -> bool:
        kind, pool, _ = lane
        record = self._record()
        available = any(info.kind == kind and info.available for info in record.capabilities.kinds)
        return available and pulls_from(pool, self._pools.get(pool), record)

    async def _scan_periodically(self) -> None:
        while True:
            await asyncio.sleep(self._config.lane_scan_s)
            self._end_lost_pulls()
            if self._open and self._bus.connected and self._load().free_slots > 0:
                await self._try_scan()
            self.plan_soon()

    async def _try_scan(self) -> None:
        """Scan; when the bus does not answer, the next scan or a hint makes up for it."""
        try:
            await self._scan()
        except QueztlError as error:
            log.debug("could not scan the lanes: %s", error)

    def _end_lost_pulls(self) -> None:
        now = self._loop.time()
        for state in self._lanes.values():
            for number in [number for number, pull in state.pulls.items() if pull[1] < now]:
                self._forget(number)

    async def _scan(self) -> None:
        """Read which lanes exist, and their backlogs. Raises: BusUnavailable."""
        lanes = await list_lanes(self._bus)
        if any(lane[1] not in self._pools and lane[1].startswith("p-") for lane in lanes):
            pools = readable_of(decoding.pool, await self._bus.kv(subjects.KV_POOLS).entries())
            # A pool that is known stays: its name says what it requires, and its record may be overwritten.
            known = self._pools | {pool.name: pool.requires for pool in pools}
            self._pools = {lane[1]: known[lane[1]] for lane in lanes if lane[1] in known}
        now = self._loop.time()
        for lane in [lane for lane in self._lanes if lane not in lanes]:
            if not self._lanes[lane].pulls and now - self._lanes[lane].served_at > self._config.lane_scan_s:
                self._drop_lane(lane)
        for lane, info in lanes.items():
            if lane not in self._lanes and not self._may_pull(lane):
                continue
            state = self._lanes.setdefault(lane, _LaneState())
            if info.unacknowledged:
                # Tasks that other nodes return are not part of the backlog: only a standing pull receives them.
                state.served_at = max(state.served_at, now - pull_plan.ACTIVE_S)
            state.backlog = info.waiting
            state.waiting_since = (state.waiting_since or now) if info.waiting else 0.0
        self.plan_soon()
