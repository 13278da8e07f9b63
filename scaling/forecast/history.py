"""The load that was, from the samples in METRICS: evenly spaced steps in nodes of a pool, as `observe` counts it. Pure.

Each sample's work is spread over the minutes that it tells of, and a minute's rate is its work by the seconds told of:
so a minute that two masters sampled counts once, and samples that drift against the minute lose nothing. A step never
depends on what came after it, or a back-test would be shown the future:

- A minute nobody sampled (a change of master) has the load of the last one that was, for HOLD_S at most; after that 0,
  for a mesh that had no master did no work, and a master writes no samples while there are no lanes and no rates.
- A task counts with the mean run time of its kind until then (half-life MEAN_S), and not before one has been timed.
- A sample that tells of longer than LONGEST_S, of no time, or of what is yet to come was made by a clock that was set
  or a master that slept, and is left out. While such ones come, silence is not taken for idleness.

What asks for a region, labels or a larger machine is counted by the pool of its lanes, apart from what any node may
take.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor, inf
from typing import NamedTuple

from mesh.leader.metrics import Sample, Work

#: The finest step, seconds, and the longer ones that a history of more than so many steps is thinned to: what `walk`,
#: `gate` and, from PROPHET_STEP_S on, Prophet do within 5 s for a pool.
MINUTE_S, DAY_S = 60.0, 86400.0
FINEST_MOST, THINNED_MOST = 2880, 10080
THINNED_S = (300.0, 600.0, 900.0, 1800.0, 3600.0)
#: Seconds: a gap keeps the load before it for so long; a sample tells of at most so much; run times are of this long.
HOLD_S, LONGEST_S, MEAN_S = 900.0, 600.0, DAY_S
#: A clock may be ahead so far, seconds.
AHEAD_S = 120.0
#: A minute of which fewer seconds are told of counts as a gap.
LEAST_S = 15.0
#: So many of the last rounds of samples are known again when they come twice.
ROUNDS = 256


class Series(NamedTuple):
    """A pool's load in nodes, a value a step, the first from `begin` on (Unix seconds)."""

    begin: float
    step_s: float
    loads: tuple[float, ...]

    @property
    def end(self) -> float:
        """Where the last step ends."""
        return self.begin + len(self.loads) * self.step_s


@dataclass
class History:
    """What the samples told: for each kind, pool of lanes and minute the seconds of work that arrived."""

    told_s: dict[int, float] = field(default_factory=dict)
    """Minute (since 1970) -> seconds of it that were told of; with two masters more than 60."""
    work_s: dict[Work, dict[int, float]] = field(default_factory=dict)
    """(kind, pool of lanes) -> minute -> seconds of work that arrived in them; OPEN: what any node may take"""
    last_at: float = 0.0
    """The end of the newest sample; 0: there is none."""
    odd_at: float = 0.0
    """When there was last a sample whose time was not to be believed, or lay far behind the newest one."""
    _first: int = 0
    """The minute before which nothing is kept."""
    _means: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """kind -> (seconds, tasks, at): faded sums of what ended"""
    _rounds: OrderedDict[tuple[int, float], set[tuple[str, str]]] = field(default_factory=OrderedDict)
    """(fence, at) -> (kind, region) of its samples"""

    def add(self, one: Sample, now: float) -> bool:
        """Count a sample, in the order of the stream; whether it counts. `now`: Unix seconds."""
        if one.at < self.last_at - HOLD_S:
            self.odd_at = now
        if not 0 < one.interval_s <= LONGEST_S or not 0 < one.at <= now + AHEAD_S or one.arrivals < 0:
            self.odd_at = now
            return False
        round_ = self._rounds.setdefault((one.fence, one.at), set())
        if (one.kind, one.region) in round_:
            return False
        minutes = _overlaps(one.at - one.interval_s, one.at)
        if not round_:
            for minute, seconds in minutes:
                self.told_s[minute] = self.told_s.get(minute, 0.0) + seconds
        round_.add((one.kind, one.region))
        while len(self._rounds) > ROUNDS:
            self._rounds.popitem(last=False)
        work = one.arrivals * self._mean_s(one)
        for pool, share in one.pool_shares.items():
            if 0 < work * share < inf:
                by = self.work_s.setdefault((one.kind, pool), {})
                for minute, seconds in minutes:
                    by[minute] = by.get(minute, 0.0) + work * share * seconds / one.interval_s
        self.last_at = max(self.last_at, one.at)
        return True

    def _mean_s(self, one: Sample) -> float:
        """Mean run time of a task of its kind, this sample's ends counted; 0 where none has been timed."""
        seconds, tasks, at = self._means.get(one.kind, (0.0, 0.0, one.at))
        if one.ends > 0 and 0 <= one.work_s < inf:
            left = 0.5 ** (max(0.0, one.at - at) / MEAN_S)
            seconds, tasks = seconds * left + one.work_s, tasks * left + one.ends
            self._means[one.kind] = seconds, tasks, max(at, one.at)
        return seconds / tasks if tasks > 0 else 0.0

    def forget(self, before: float) -> None:
        """Whole days (UTC) before that time (Unix seconds) are not kept."""
        first = floor(before / DAY_S) * round(DAY_S / MINUTE_S)
        if first == self._first:
            return
        self._first = first
        for by in (self.told_s, *self.work_s.values()):
            for minute in [one for one in by if one < first]:
                del by[minute]


def _overlaps(begin: float, end: float) -> list[tuple[int, float]]:
    """(minute, seconds of it) of a stretch of time"""
    first, last = floor(begin / MINUTE_S), floor(end / MINUTE_S)
    parts = [(one, min(end, (one + 1) * MINUTE_S) - max(begin, one * MINUTE_S)) for one in range(first, last + 1)]
    return [part for part in parts if part[1] > 0]


def step_of(span_s: float) -> float:
    """How long the steps of a history of that length are, seconds."""
    if span_s <= FINEST_MOST * MINUTE_S:
        return MINUTE_S
    return next((step_s for step_s in THINNED_S if span_s <= THINNED_MOST * step_s), THINNED_S[-1])


def bounds(history: History, now: float) -> tuple[float, float, float] | None:
    """(begin, end, step) of the whole steps there are, each a multiple of the step; None: there are none.

    They end with the newest sample; when none came for HOLD_S, now: its master had nothing to tell of.
    """
    if not history.told_s:
        return None
    begin = min(history.told_s) * MINUTE_S
    heard_at = max(history.last_at, history.odd_at)
    end = history.last_at if now - heard_at <= HOLD_S else now
    step_s = step_of(end - begin)
    first, last = -floor(-begin / step_s), floor(min(end, max(now, begin)) / step_s)
    return (first * step_s, last * step_s, step_s) if last > first else None


def series(history: History, nodes: Mapping[Work, float], within: tuple[float, float, float]) -> Series:
    """The load in those bounds. `nodes`: (kind, pool of lanes) -> nodes that one running task of it keeps busy."""
    begin, end, step_s = within
    parts = [(history.work_s[work], each) for work, each in nodes.items() if work in history.work_s]
    first, each_step = round(begin / MINUTE_S), round(step_s / MINUTE_S)
    rate, held, sums = 0.0, 0.0, 0.0
    loads: list[float] = []
    hold = HOLD_S / MINUTE_S
    for number in range(round((end - begin) / MINUTE_S)):
        minute = first + number
        told = history.told_s.get(minute, 0.0)
        if told >= LEAST_S:
            rate, held = sum(by.get(minute, 0.0) * each for by, each in parts) / told, 0.0
        else:
            held += 1
            if held > hold:
                rate = 0.0
        sums += rate
        if (number + 1) % each_step == 0:
            loads.append(sums / each_step)
            sums = 0.0
    return Series(begin, step_s, tuple(loads))
