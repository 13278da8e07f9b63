"""Plans the pulls of a node: how many tasks to request from which lane. Pure: plain values in, pull requests out.

The credit of a node is its free slots plus prefetch. The tasks it has requested and not received, plus those it holds
unstarted, never exceed that credit. Prefetch is measured as run time (about 50 ms), so that a node never hoards long
tasks and its workers never wait for short ones. A full node requests nothing.
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
#: So many scans because of hints may start within HINT_WINDOW_S, seconds.
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


class Load(msgspec.Struct, frozen=True):
    """What the node holds, for the pull plan."""

    slots: int
    free_slots: int
    unstarted: tuple[tuple[float, int], ...]
    """(mean run time in seconds or 0, number) of the tasks that no worker has started."""
    means_s: dict[str, float]
    """kind -> mean run time, seconds."""


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

    def room(self, mean_s: float, keep_slots: int = 0) -> int:
        """How many more tasks of that run time may be requested; of an unknown run time (0) only one per free slot."""
        free = max(0, min(self.slots - keep_slots, self.count))
        return free + max(0, min(self.prefetch(mean_s), self.count - max(self.slots, 0)))

    def prefetch(self, mean_s: float) -> int:
        """How many tasks of that run time fit into the rest of the prefetch."""
        return int(self.work_s / max(mean_s, SHORTEST_RUN_S)) if mean_s > 0 and self.work_s > 0 else 0

    def spend(self, tasks: int, mean_s: float, slots_first: bool = True) -> None:
        """Take `tasks` from the credit: first from free slots and then from prefetch, or the other way round."""
        self.count -= tasks
        if not slots_first:
            ahead = min(tasks, self.prefetch(mean_s))
            self.work_s -= ahead * max(mean_s, SHORTEST_RUN_S)
            tasks -= ahead
        at_once = min(tasks, max(0, self.slots))
        self.slots -= at_once
        self.work_s -= (tasks - at_once) * max(mean_s, SHORTEST_RUN_S)


def scan_pause_s(started: Sequence[float], now: float) -> float:
    """How long a scan because of a hint must wait: at most HINT_SCANS of them start within HINT_WINDOW_S.

    The first ones start at once: work in a new lane should not wait for them. `started`: when the
    latest ones started, the oldest first.
    """
    return max(0.0, started[-HINT_SCANS] + HINT_WINDOW_S - now) if len(started) >= HINT_SCANS else 0.0


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
        credit.spend(view.requested, view.mean_s or config.prefetch_work_s, slots_first=_has_work(view))
    requests = _for_work(lanes, credit, slots, now, config)
    return requests + _standing(lanes, {request.lane for request in requests}, credit, slots, now)


def starved(lanes: Sequence[LaneView], requests: Sequence[PullRequest]) -> frozenset[Lane]:
    """The lanes with a backlog from which nothing is requested, neither before nor by `requests`."""
    waiting = frozenset(view.lane for view in lanes if view.backlog > 0 and not view.requested)
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
    active = [view for view in lanes if view.backlog > 0 or now - view.served_at < ACTIVE_S]
    levels: dict[int, list[LaneView]] = {}
    for view in active:
        levels.setdefault(effective_urgency(view, now, config), []).append(view)
    requests: list[PullRequest] = []
    for level in sorted(levels):
        views = sorted(levels[level], key=lambda view: (view.far, view.served_at, view.lane))
        blocked = False
        for place, view in enumerate(views):
            busy = _has_work(view)
            fair = -(-credit.room(view.mean_s, 0 if busy or slots < 2 else 1) // (len(views) - place))
            # A new pull after each task would cost a round trip per task: wait until half of the pulls are used up.
            if fair <= 0 or (view.requested > 0 and fair < view.requested):
                blocked = blocked or (fair <= 0 and view.backlog > 0 and view.requested == 0)
                continue
            credit.spend(fair, view.mean_s or config.prefetch_work_s, slots_first=busy)
            requests.append(PullRequest(view.lane, fair))
        # Tasks too long to prefetch wait for a free slot, and prefetched short tasks of less urgent lanes would take
        # every slot for ever: request nothing less urgent until this lane has had its turn.
        if blocked:
            break
    return requests


def _has_work(view: LaneView) -> bool:
    return view.backlog > 0 or view.mean_s <= 0


def _standing(
    lanes: Sequence[LaneView], requested_now: set[Lane], credit: _Credit, slots: int, now: float
) -> list[PullRequest]:
    """One standing pull per quiet lane, as far as free slots go; one slot is kept for a lane that wakes up."""
    spare = min(credit.slots, credit.count) - (1 if slots > 1 else 0)
    quiet = [
        view
        for view in lanes
        if view.lane not in requested_now and view.requested == 0 and now - view.served_at < FORGOTTEN_S
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
