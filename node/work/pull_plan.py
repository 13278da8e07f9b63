"""How much to ask of which lane, now. Pure: plain values in, a list of asks out.

Credit: what a node has asked for and not yet received, together with what it holds unstarted, never exceeds its
free slots plus prefetch. Prefetch is measured in work (about 50 ms of it), so long tasks are never hoarded and
short ones never starve a worker. A full node asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mesh.config import MeshConfig
from mesh.lanes import Lane
from mesh.subjects import URGENCIES

#: No run time is believed to be shorter than this: decoding, framing and settling cost that much anyway.
SHORTEST_RUN_S = 200e-6
#: A lane that delivered within this time is asked as if it had a backlog: its next task is on its way.
ACTIVE_S = 1.0
#: What a node holds unstarted goes back when it would not begin within this.
HOARD_S = 1.0
#: A lane that delivered nothing for this long gets no standing pull; a wake-up hint or the scan brings it back.
FORGOTTEN_S = 120.0


@dataclass(frozen=True, slots=True)
class LaneView:
    """What a node knows of one lane it may pull from."""

    lane: Lane
    mean_s: float = 0.0
    """Measured run time of the kind; 0 while unknown."""
    backlog: int = 0
    """Tasks believed to wait there."""
    asked: int = 0
    """Asked for by this node and not received yet."""
    served_at: float = float("-inf")
    """When this node last got something (or was woken up) there, monotonic."""
    waiting_since: float = 0.0
    """Since when it has had a backlog this node did not serve, monotonic; 0: it has none."""
    idle: bool = False
    """It was asked a while ago and nothing came since: nothing waits there, whatever was believed."""
    far: bool = False
    """Its work comes from another region than this node's."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One pull request."""

    lane: Lane
    batch: int


@dataclass(slots=True)
class _Credit:
    """Free slots first, then prefetch as seconds of work and as a count."""

    slots: int
    work_s: float
    count: int

    def room(self, mean_s: float, keep_slots: int = 0) -> int:
        """How many tasks of that run time may still be asked for; of unknown ones only what free slots take."""
        free = max(0, min(self.slots - keep_slots, self.count))
        return free + max(0, min(self.prefetch(mean_s), self.count - max(self.slots, 0)))

    def prefetch(self, mean_s: float) -> int:
        """How many tasks of that run time fit into the prefetch that is left."""
        return int(self.work_s / max(mean_s, SHORTEST_RUN_S)) if mean_s > 0 and self.work_s > 0 else 0

    def spend(self, tasks: int, mean_s: float, slots_first: bool = True) -> None:
        """Take `tasks` out of the credit: from free slots, then from prefetch, or the other way round."""
        self.count -= tasks
        if not slots_first:
            ahead = min(tasks, self.prefetch(mean_s))
            self.work_s -= ahead * max(mean_s, SHORTEST_RUN_S)
            tasks -= ahead
        at_once = min(tasks, max(0, self.slots))
        self.slots -= at_once
        self.work_s -= (tasks - at_once) * max(mean_s, SHORTEST_RUN_S)


def share(
    lanes: Sequence[LaneView],
    *,
    slots: int,
    free_slots: int,
    unstarted: Sequence[tuple[float, int]],
    now: float,
    config: MeshConfig,
) -> list[Ask]:
    """The pulls to send now.

    `unstarted`: (mean run time in seconds or 0, tasks) of what the node holds and has not started.
    The promise, which a property test holds it to: asked + new asks + unstarted <= free slots + prefetch.
    """
    credit = _Credit(free_slots, slots * config.prefetch_work_s, free_slots + config.prefetch_limit)
    for mean_s, tasks in unstarted:
        credit.spend(tasks, mean_s or config.prefetch_work_s)
    for view in lanes:
        # What stands on a lane without work must not use up the slots another lane wakes up for.
        credit.spend(view.asked, view.mean_s or config.prefetch_work_s, slots_first=_has_work(view))
    asks = _for_work(lanes, credit, slots, now, config)
    return asks + _standing(lanes, {ask.lane for ask in asks}, credit, slots, now)


def starved(lanes: Sequence[LaneView], asks: Sequence[Ask]) -> frozenset[Lane]:
    """Lanes with work that are asked for nothing, neither before nor by `asks`."""
    return frozenset(view.lane for view in lanes if view.backlog > 0 and not view.asked) - {one.lane for one in asks}


def should_take_back(
    starving: frozenset[Lane],
    lanes: Sequence[LaneView],
    *,
    slots: int,
    free_slots: int,
    unstarted: Sequence[tuple[float, int]],
    now: float,
    config: MeshConfig,
) -> bool:
    """Whether a lane that is `starved` would get something if no pull stood where nothing waits.

    Then all pulls are best taken back and shared out again: else that lane waits until they have run out.
    """
    if not any(view.idle for view in lanes):
        return False
    afresh = [replace(view, asked=0, backlog=0 if view.idle else view.backlog) for view in lanes]
    asks = share(afresh, slots=slots, free_slots=free_slots, unstarted=unstarted, now=now, config=config)
    return any(one.lane in starving for one in asks)


def _for_work(lanes: Sequence[LaneView], credit: _Credit, slots: int, now: float, config: MeshConfig) -> list[Ask]:
    """Lanes with work, the most urgent first, then the near ones; equals share, the one served longest ago first."""
    wanting = [view for view in lanes if view.backlog > 0 or now - view.served_at < ACTIVE_S]
    levels: dict[int, list[LaneView]] = {}
    for view in wanting:
        levels.setdefault(effective_urgency(view, now, config), []).append(view)
    asks = []
    for level in sorted(levels):
        views = sorted(levels[level], key=lambda view: (view.far, view.served_at, view.lane))
        blocked = False
        for place, view in enumerate(views):
            busy = _has_work(view)
            fair = -(-credit.room(view.mean_s, 0 if busy or slots < 2 else 1) // (len(views) - place))
            # Asking again for every task would cost a round trip each: wait until half is used up.
            if fair <= 0 or (view.asked > 0 and fair < view.asked):
                blocked = blocked or (fair <= 0 and view.backlog > 0 and view.asked == 0)
                continue
            credit.spend(fair, view.mean_s or config.prefetch_work_s, slots_first=busy)
            asks.append(Ask(view.lane, fair))
        # Tasks too long to prefetch wait for a free slot, and less urgent short ones, prefetched, would fill every
        # slot for ever: nothing less urgent is asked for until this lane has had its turn.
        if blocked:
            break
    return asks


def _has_work(view: LaneView) -> bool:
    return view.backlog > 0 or view.mean_s <= 0


def _standing(lanes: Sequence[LaneView], asked_now: set[Lane], credit: _Credit, slots: int, now: float) -> list[Ask]:
    """One pull each on quiet lanes, as far as free slots go, one slot kept for a lane that wakes up."""
    spare = min(credit.slots, credit.count) - (1 if slots > 1 else 0)
    quiet = [
        view for view in lanes if view.lane not in asked_now and view.asked == 0 and now - view.served_at < FORGOTTEN_S
    ]
    quiet.sort(key=lambda view: (view.far, URGENCIES.index(view.lane[2]), -view.served_at, view.lane))
    return [Ask(view.lane, 1) for view in quiet[: max(0, spare)]]


def effective_urgency(view: LaneView, now: float, config: MeshConfig) -> int:
    """0 is high; each `low_urgency_wait_s` a lane waited moves it up by one, so that low is never starved."""
    waited_s = now - view.waiting_since if view.waiting_since and view.backlog > 0 else 0.0
    return URGENCIES.index(view.lane[2]) - int(waited_s / config.low_urgency_wait_s)


def keeps(mean_s: float, slots: int, config: MeshConfig) -> int:
    """How many tasks of that run time a node may hold unstarted: one a slot, or what the prefetch allows. Pure."""
    return max(slots, int(slots * config.prefetch_work_s / max(mean_s, SHORTEST_RUN_S)))


def surplus(
    unstarted: Mapping[str, int], means_s: Mapping[str, float], slots: int, config: MeshConfig
) -> dict[str, int]:
    """kind -> how many unstarted tasks should go back: they were taken for short ones, and turned out long.

    Nothing goes back that all slots together would begin within `HOARD_S`: giving back has a price, too.
    """
    found: dict[str, int] = {}
    for kind, count in unstarted.items():
        mean_s = means_s.get(kind, 0.0)
        if count * mean_s > HOARD_S * slots and count > keeps(mean_s, slots, config):
            found[kind] = count - keeps(mean_s, slots, config)
    return found
