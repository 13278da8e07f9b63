"""Plans the pulls of a node: how many tasks to request from which lane. Pure: plain values in, pull requests out.

The credit of a node is its free slots plus prefetch. The tasks it has requested and not received, plus those it holds
unstarted, never exceed that credit. Prefetch is measured as run time (about 50 ms), so that a node never hoards long
tasks and its workers never wait for short ones. A full node requests nothing.

Most kinds need all slots of a node. Of such a lane a node requests as many tasks as can start at once; when only some
slots are free, one, for which it then keeps them, unless another node could start it now: then it leaves the lane to
that node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mesh.config import MeshConfig
from mesh.lanes import Lane
from mesh.subjects import URGENCIES

#: Shorter run times count as this, seconds: decoding, framing and settling a task cost as much.
SHORTEST_RUN_S = 200e-6
#: A lane that delivered within this time counts as if it had a backlog, seconds: its next task is on its way.
ACTIVE_S = 1.0
#: Unstarted tasks that would not start within this go back to their lane, seconds.
HOARD_S = 1.0
#: A lane that delivered nothing for this long gets no standing pull, seconds; a wake-up hint or the scan revives it.
FORGOTTEN_S = 120.0
#: Slots that become free within this are waited for, seconds.
SOON_S = 0.25
#: A lane is left to other nodes for at most this long, seconds: they may have a reason not to pull from it.
LEFT_S = 3.0
#: A task that another node could start is returned when it was delivered less often than this.
MOST_DELIVERIES = 4
#: At most HINT_SCANS scans because of hints start within HINT_WINDOW_S, seconds.
HINT_SCANS, HINT_WINDOW_S = 4, 1.0


class LaneView(msgspec.Struct, frozen=True):
    """What a node knows of one lane it may pull from."""

    lane: Lane
    mean_s: float = 0.0
    """Measured run time of the kind; 0 while unknown."""
    backlog: int = 0
    """How many tasks wait there, as far as the node knows."""
    requested: int = 0
    """Tasks that this node has requested and not received."""
    served_at: float = float("-inf")
    """When it last delivered to this node, or sent a wake-up hint, monotonic."""
    waiting_since: float = 0.0
    """Since when it has had a backlog that this node did not serve, monotonic; 0: it has none."""
    idle: bool = False
    """A pull has stood there for a while without a delivery: nothing waits there, whatever `backlog` says."""
    far: bool = False
    """Its tasks come from another region than this node's."""
    cores: int = 1
    """Slots that one of its tasks needs on this node."""
    left: bool = False
    """It is left to the other nodes; see `must_wait`."""


class Load(msgspec.Struct, frozen=True):
    """What the node holds, for the pull plan."""

    slots: int
    free_slots: int
    """Those that no task uses, less the second and further slots that unstarted tasks need."""
    unstarted: tuple[tuple[float, int], ...]
    """(mean run time in seconds or 0, number) of the tasks that no worker has started."""
    means_s: dict[str, float]
    """kind -> mean run time, seconds."""
    busy_s: float = 0.0
    """The longest expected run time of a running task, seconds; infinite while that of its kind is unknown."""


class PullRequest(msgspec.Struct, frozen=True):
    """A request for at most `batch` tasks of one lane."""

    lane: Lane
    batch: int


@dataclass(slots=True)
class _Credit:
    """Free slots, and prefetch both as run time and as a number of tasks."""

    slots: int
    work_s: float
    count: int

    def room(self, mean_s: float, cores: int, keep_slots: int = 0) -> int:
        """How many more tasks of that run time may be requested. Of an unknown run time (0) only as many as can start,
        or one, for which the free slots are kept."""
        free = max(0, min(self.slots - keep_slots, self.count))
        return (free // cores or min(free, 1)) + max(0, min(self.prefetch(mean_s), self.count - max(self.slots, 0)))

    def prefetch(self, mean_s: float) -> int:
        """How many tasks of that run time fit into the rest of the prefetch."""
        return int(self.work_s / max(mean_s, SHORTEST_RUN_S)) if mean_s > 0 and self.work_s > 0 else 0

    def spend(self, tasks: int, mean_s: float, cores: int = 1, slots_first: bool = True) -> None:
        """Take `tasks` from the credit: first from free slots and then from prefetch, or the other way round."""
        self.count -= tasks
        if not slots_first:
            ahead = min(tasks, self.prefetch(mean_s))
            self.work_s -= ahead * max(mean_s, SHORTEST_RUN_S)
            tasks -= ahead
        at_once = min(tasks, max(0, -(-self.slots // cores)))
        self.slots -= min(at_once * cores, max(0, self.slots))
        self.work_s -= (tasks - at_once) * max(mean_s, SHORTEST_RUN_S)


def scan_pause_s(started: Sequence[float], now: float) -> float:
    """How long a scan because of a hint must wait: at most HINT_SCANS of them start within HINT_WINDOW_S.

    The first ones start at once: work in a new lane should not wait for them. `started`: when the
    latest ones started, the oldest first.
    """
    return max(0.0, started[-HINT_SCANS] + HINT_WINDOW_S - now) if len(started) >= HINT_SCANS else 0.0


def must_wait(cores: int, free_slots: int, busy_s: float) -> bool:
    """Whether a task could not start soon here: it needs slots that are in use, perhaps for long."""
    return cores > free_slots and busy_s > SOON_S


def plan_pulls(
    lanes: Sequence[LaneView],
    *,
    slots: int,
    free_slots: int,
    unstarted: Sequence[tuple[float, int]],
    now: float,
    config: MeshConfig,
) -> list[PullRequest]:
    """The pulls to send now.

    `unstarted`: (mean run time in seconds or 0, number) of the tasks that the node holds and has not started. The
    promise, checked by a property test: requested + new requests + unstarted <= free slots + prefetch.
    """
    credit = _Credit(free_slots, slots * config.prefetch_work_s, free_slots + config.prefetch_limit)
    for mean_s, tasks in unstarted:
        credit.spend(tasks, mean_s or config.prefetch_work_s)
    for view in lanes:
        # Standing pulls on lanes without a backlog must not use up the slots for a lane that wakes up.
        mean_s, cores = view.mean_s or config.prefetch_work_s, _slots_for(view)
        credit.spend(view.requested, mean_s, cores, slots_first=_has_work(view))
    requests = _for_work(lanes, credit, slots, now, config)
    return requests + _standing(lanes, {request.lane for request in requests}, credit, slots, now)


def starved(lanes: Sequence[LaneView], requests: Sequence[PullRequest]) -> frozenset[Lane]:
    """The lanes with a backlog from which nothing is requested, neither before nor by `requests`."""
    waiting = frozenset(view.lane for view in lanes if view.backlog > 0 and not view.requested and not view.left)
    return waiting - {request.lane for request in requests}


def should_cancel_pulls(
    starving: frozenset[Lane],
    lanes: Sequence[LaneView],
    *,
    slots: int,
    free_slots: int,
    unstarted: Sequence[tuple[float, int]],
    now: float,
    config: MeshConfig,
) -> bool:
    """Whether a starved lane would get a pull if the idle pulls on other lanes did not exist.

    Then the node cancels all its pulls and plans again; otherwise that lane waits until they expire.
    """
    if not any(view.idle for view in lanes):
        return False
    without_pulls = [
        msgspec.structs.replace(view, requested=0, backlog=0 if view.idle else view.backlog) for view in lanes
    ]
    requests = plan_pulls(
        without_pulls, slots=slots, free_slots=free_slots, unstarted=unstarted, now=now, config=config
    )
    return any(request.lane in starving for request in requests)


def _for_work(
    lanes: Sequence[LaneView], credit: _Credit, slots: int, now: float, config: MeshConfig
) -> list[PullRequest]:
    """Pulls on active lanes: the most urgent first, then near ones; equals share, the one served longest ago first."""
    active = [view for view in lanes if not view.left and (view.backlog > 0 or now - view.served_at < ACTIVE_S)]
    levels: dict[int, list[LaneView]] = {}
    for view in active:
        levels.setdefault(effective_urgency(view, now, config), []).append(view)
    requests: list[PullRequest] = []
    for level in sorted(levels):
        views = sorted(levels[level], key=lambda view: (view.far, view.served_at, view.lane))
        blocked = False
        for place, view in enumerate(views):
            busy = _has_work(view)
            room = credit.room(view.mean_s, view.cores, keep_slots=0 if busy or slots < 2 else 1)
            fair = -(-room // (len(views) - place))
            # A new pull after each task would cost a round trip per task: wait until half of the pulls are used up.
            if fair <= 0 or (view.requested > 0 and fair < view.requested):
                blocked = blocked or (fair <= 0 and view.backlog > 0 and view.requested == 0)
                continue
            credit.spend(fair, view.mean_s or config.prefetch_work_s, _slots_for(view), slots_first=busy)
            requests.append(PullRequest(view.lane, fair))
        # Tasks too long to prefetch wait for a free slot, and prefetched short tasks of less urgent lanes would take
        # every slot for ever: request nothing less urgent until this lane has had its turn.
        if blocked:
            break
    return requests


def _has_work(view: LaneView) -> bool:
    return view.backlog > 0 or view.mean_s <= 0


def _slots_for(view: LaneView) -> int:
    """The slots that a request from this lane keeps: where no task is known to wait, one."""
    return view.cores if view.backlog > 0 else 1


def _standing(
    lanes: Sequence[LaneView], requested_now: set[Lane], credit: _Credit, slots: int, now: float
) -> list[PullRequest]:
    """One standing pull per quiet lane, as far as free slots go; one slot is kept for a lane that wakes up."""
    spare = min(credit.slots, credit.count) - (1 if slots > 1 else 0)
    quiet = [
        view
        for view in lanes
        if not view.left
        and view.lane not in requested_now
        and view.requested == 0
        and now - view.served_at < FORGOTTEN_S
    ]
    quiet.sort(key=lambda view: (view.far, URGENCIES.index(view.lane[2]), -view.served_at, view.lane))
    return [PullRequest(view.lane, 1) for view in quiet[: max(0, spare)]]


def effective_urgency(view: LaneView, now: float, config: MeshConfig) -> int:
    """0 is high. Each `low_urgency_wait_s` that a lane waits raises it by one level, so that low is never starved."""
    waited_s = now - view.waiting_since if view.waiting_since and view.backlog > 0 else 0.0
    return URGENCIES.index(view.lane[2]) - int(waited_s / config.low_urgency_wait_s)


def most_unstarted(mean_s: float, slots: int, config: MeshConfig) -> int:
    """How many tasks of that run time a node may hold unstarted: one per slot, or what the prefetch allows."""
    return max(slots, int(slots * config.prefetch_work_s / max(mean_s, SHORTEST_RUN_S)))


def surplus(
    unstarted: Mapping[str, int], means_s: Mapping[str, float], slots: int, config: MeshConfig
) -> dict[str, int]:
    """kind -> how many unstarted tasks must go back, because their kind turned out longer than it was.

    Tasks that all slots together would start within HOARD_S stay: returning them has a price as well.
    """
    found: dict[str, int] = {}
    for kind, count in unstarted.items():
        mean_s = means_s.get(kind, 0.0)
        if count * mean_s > HOARD_S * slots and count > most_unstarted(mean_s, slots, config):
            found[kind] = count - most_unstarted(mean_s, slots, config)
    return found
