"""The load history from the samples in METRICS: evenly spaced steps in nodes of a pool, as `observe` counts load. Pure.

The work of each sample is spread over the minutes it covers; the rate of a minute is its work by the seconds covered.
So a minute that two leaders sampled counts once, and samples that drift against the minute lose nothing. A step never
depends on what came after it, or a back-test would see the future:

- A minute that nobody sampled (a change of leader) has the load of the last one that was, for HOLD_S at most; after
  that 0, for a mesh without a leader did no work, and a leader writes no samples while there are no lanes and no rates.
- A task counts with the mean run time of its kind until then (half-life MEAN_S), and not before one has been timed.
- A sample that covers more than LONGEST_S, no time, or the future was made by a clock that was set or a leader that
  slept, and is left out. While such samples arrive, silence is not taken for idleness.

Work that asks for a region, labels or a larger machine is counted by the pool of its lanes, apart from work that any
node may take.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor, inf
from typing import NamedTuple

from mesh.leader.metrics import Sample, Work
from scaling.domain.units import DAY_S

#: The finest step, seconds.
MINUTE_S = 60.0
#: A history of more than FINEST_MOST minutes is thinned to longer steps, the first of THINNED_S seconds that leaves at
#: most THINNED_MOST: what the walk-forward forecast, the gate and Prophet do within 5 s for a pool.
FINEST_MOST, THINNED_MOST = 2880, 10080
THINNED_S = (300.0, 600.0, 900.0, 1800.0, 3600.0)
#: Seconds for which a gap keeps the load before it; most seconds that a sample covers; half-life of mean run times.
HOLD_S, LONGEST_S, MEAN_S = 900.0, 600.0, DAY_S
#: Seconds that a sample's clock may be ahead.
AHEAD_S = 120.0
#: A minute of which fewer seconds are covered counts as a gap.
LEAST_S = 15.0
#: How many of the last batches of samples are recognized when they arrive twice.
BATCHES = 256


class Series(NamedTuple):
    """A pool's load in nodes, one value per step, the first from `begin` on (Unix seconds)."""

    begin: float
    step_s: float
    loads: tuple[float, ...]

    @property
    def end(self) -> float:
        """When the last step ends, Unix seconds."""
        return self.begin + len(self.loads) * self.step_s


@dataclass
class History:
    """The samples, summed: for each kind, pool of lanes and minute the seconds of work that arrived."""

    covered_s: dict[int, float] = field(default_factory=dict[int, float])
    """Minute (since 1970) -> seconds of it that samples cover; with two leaders more than 60."""
    work_s: dict[Work, dict[int, float]] = field(default_factory=dict[Work, dict[int, float]])
    """(kind, pool of lanes) -> minute -> seconds of work that arrived in it; OPEN: work that any node may take"""
    last_at: float = 0.0
    """The end of the newest sample; 0: there is none."""
    odd_at: float = 0.0
    """When the last sample arrived whose time was implausible, or lay far behind the newest one."""
    _first: int = 0
    """The minute before which nothing is kept."""
    _means: dict[str, tuple[float, float, float]] = field(default_factory=dict[str, tuple[float, float, float]])
    """kind -> (seconds, tasks, at): decayed sums over the tasks that ended"""
    _batches: OrderedDict[tuple[int, float], set[tuple[str, str]]] = field(
        default_factory=OrderedDict[tuple[int, float], set[tuple[str, str]]]
    )
    """(fence, at) -> (kind, region) of the samples of that batch"""

    def add(self, sample: Sample, now: float) -> bool:
        """Count a sample, in the order of the stream; returns whether it counts. `now`: Unix seconds."""
        if sample.at < self.last_at - HOLD_S:
            self.odd_at = now
        if not 0 < sample.interval_s <= LONGEST_S or not 0 < sample.at <= now + AHEAD_S or sample.arrivals < 0:
            self.odd_at = now
            return False
        batch = self._batches.setdefault((sample.fence, sample.at), set())
        if (sample.kind, sample.region) in batch:
            return False
        minutes = _overlaps(sample.at - sample.interval_s, sample.at)
        if not batch:
            for minute, seconds in minutes:
                self.covered_s[minute] = self.covered_s.get(minute, 0.0) + seconds
        batch.add((sample.kind, sample.region))
        while len(self._batches) > BATCHES:
            self._batches.popitem(last=False)
        work = sample.arrivals * self._mean_s(sample)
        for pool, share in sample.pool_shares.items():
            if 0 < work * share < inf:
                by_minute = self.work_s.setdefault((sample.kind, pool), {})
                for minute, seconds in minutes:
                    by_minute[minute] = by_minute.get(minute, 0.0) + work * share * seconds / sample.interval_s
        self.last_at = max(self.last_at, sample.at)
        return True

    def _mean_s(self, sample: Sample) -> float:
        """Mean run time of a task of the sample's kind, its own ends included; 0 where none has been timed."""
        seconds, tasks, at = self._means.get(sample.kind, (0.0, 0.0, sample.at))
        if sample.ends > 0 and 0 <= sample.work_s < inf:
            left = 0.5 ** (max(0.0, sample.at - at) / MEAN_S)
            seconds, tasks = seconds * left + sample.work_s, tasks * left + sample.ends
            self._means[sample.kind] = seconds, tasks, max(at, sample.at)
        return seconds / tasks if tasks > 0 else 0.0

    def forget(self, before: float) -> None:
        """Drop whole days (UTC) before that time (Unix seconds)."""
        first = floor(before / DAY_S) * round(DAY_S / MINUTE_S)
        if first == self._first:
            return
        self._first = first
        for by_minute in (self.covered_s, *self.work_s.values()):
            for minute in [minute for minute in by_minute if minute < first]:
                del by_minute[minute]


def _overlaps(begin: float, end: float) -> list[tuple[int, float]]:
    """(minute, seconds of it) of the time from `begin` to `end`"""
    first, last = floor(begin / MINUTE_S), floor(end / MINUTE_S)
    parts = [
        (minute, min(end, (minute + 1) * MINUTE_S) - max(begin, minute * MINUTE_S)) for minute in range(first, last + 1)
    ]
    return [part for part in parts if part[1] > 0]


def step_of(span_s: float) -> float:
    """Length of the steps of a history of that length, seconds."""
    if span_s <= FINEST_MOST * MINUTE_S:
        return MINUTE_S
    return next((step_s for step_s in THINNED_S if span_s <= THINNED_MOST * step_s), THINNED_S[-1])


def bounds(history: History, now: float) -> tuple[float, float, float] | None:
    """(begin, end, step) of the whole steps there are, each a multiple of the step; None when there are none.

    They end with the newest sample; when none arrived for HOLD_S, now: the leader had nothing to sample.
    """
    if not history.covered_s:
        return None
    begin = min(history.covered_s) * MINUTE_S
    heard_at = max(history.last_at, history.odd_at)
    end = history.last_at if now - heard_at <= HOLD_S else now
    step_s = step_of(end - begin)
    first, last = -floor(-begin / step_s), floor(min(end, max(now, begin)) / step_s)
    return (first * step_s, last * step_s, step_s) if last > first else None


def series(history: History, nodes: Mapping[Work, float], within: tuple[float, float, float]) -> Series:
    """The load within those bounds. `nodes`: (kind, pool of lanes) -> nodes that one running task of it keeps busy."""
    begin, end, step_s = within
    parts = [(history.work_s[work], each) for work, each in nodes.items() if work in history.work_s]
    first, minutes_per_step = round(begin / MINUTE_S), round(step_s / MINUTE_S)
    rate, held, total = 0.0, 0.0, 0.0
    loads: list[float] = []
    hold = HOLD_S / MINUTE_S
    for number in range(round((end - begin) / MINUTE_S)):
        minute = first + number
        covered = history.covered_s.get(minute, 0.0)
        if covered >= LEAST_S:
            rate, held = sum(by_minute.get(minute, 0.0) * each for by_minute, each in parts) / covered, 0.0
        else:
            held += 1
            if held > hold:
                rate = 0.0
        total += rate
        if (number + 1) % minutes_per_step == 0:
            loads.append(total / minutes_per_step)
            total = 0.0
    return Series(begin, step_s, tuple(loads))
