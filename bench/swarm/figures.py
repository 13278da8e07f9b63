"""From what a swarm's nodes wrote down to figures and verdicts. Pure.

All times are seconds of this machine's monotonic clock, which its processes share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench.measure import spread

#: The marks of a mesh on one machine of two cores.
LEADER_CORE_PERCENT, NOTICED_S = 10.0, 5.0


@dataclass(frozen=True)
class Report:
    """What the nodes of one process (or of many, merged) wrote down."""

    observers: int = 0
    gone: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    """Node -> (how many hold it for gone, when the first of them did, when the last)."""
    suspected: dict[str, int] = field(default_factory=dict)
    """Node -> how often it was suspected."""
    done: dict[str, int] = field(default_factory=dict)
    """Node -> tasks it has done."""

    @classmethod
    def of(cls, logs: Iterable[tuple[Mapping[str, float], Mapping[str, int]]], done: Mapping[str, int]) -> Report:
        """Of nodes' (when they held whom for gone, how often they suspected whom)."""
        return merge(
            Report(1, {node: (1, at, at) for node, at in gone.items()}, dict(suspected)) for gone, suspected in logs
        )._with_done(done)

    def _with_done(self, done: Mapping[str, int]) -> Report:
        return Report(self.observers, self.gone, self.suspected, dict(done))

    def as_json(self) -> dict[str, Any]:
        """For the way to the parent."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Report:
        """The way back."""
        gone = {node: (int(count), first, last) for node, (count, first, last) in document["gone"].items()}
        return cls(document["observers"], gone, dict(document["suspected"]), dict(document["done"]))


def merge(reports: Iterable[Report]) -> Report:
    """Those of several processes as one."""
    observers, gone, suspected, done = 0, dict[str, tuple[int, float, float]](), dict[str, int](), dict[str, int]()
    for one in reports:
        observers += one.observers
        for node, (count, first, last) in one.gone.items():
            before = gone.get(node, (0, first, last))
            gone[node] = (before[0] + count, min(before[1], first), max(before[2], last))
        for node, times in one.suspected.items():
            suspected[node] = suspected.get(node, 0) + times
        done.update(one.done)
    return Report(observers, gone, suspected, done)


def deaths(report: Report, dead: Collection[str], died_at: float) -> dict[str, Any]:
    """How soon living observers held all of `dead` for gone, seconds; who never did; and who was accused falsely.

    `false_deaths` counts living nodes that any observer held for gone; `suspected` those it doubted for a moment.
    """
    noticed = [report.gone[node] for node in dead if node in report.gone]
    unnoticed = sum(report.observers - report.gone.get(node, (0, 0.0, 0.0))[0] for node in dead)
    return {
        "nodes": len(dead),
        "observers": report.observers,
        "first_s": round(min((first for _, first, _ in noticed), default=died_at) - died_at, 3),
        "all_noticed_everywhere_s": round(max((last for _, _, last in noticed), default=died_at) - died_at, 3),
        "unnoticed": unnoticed,
        "false_deaths": sorted(report.gone.keys() - set(dead)),
        "suspected_living": len(report.suspected.keys() - set(dead)),
    }


def shares(before: Mapping[str, float], after: Mapping[str, float], window_s: float) -> dict[str, float]:
    """Per cent of a core that each process used over a window, from its CPU seconds."""
    return {name: round(100 * (after[name] - before[name]) / window_s, 2) for name in before if name in after}


def summed(windows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Of several windows: each process' median, lowest, highest."""
    names = {name for window in windows for name in window}
    found = {}
    for name in sorted(names):
        values = [window[name] for window in windows if name in window]
        found[name] = {"median": round(median(values), 2), "low": min(values), "high": max(values)}
    return found


def each(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Several rounds of one figure: median, spread, and all of them."""
    return {
        "median": round(median(values), digits),
        "spread": round(spread(values), 3),
        "rounds": [round(one, digits) for one in values],
    }


def verdicts(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each mark, what was measured, and whether it holds."""
    killed, frozen = document["deaths"]["killed"], document["deaths"]["frozen"]
    leader = document["cpu_core_percent"]["leader"]
    false = sorted({*killed["false_deaths"], *frozen["false_deaths"], *document["false_deaths_before"]})
    rows: list[tuple[str, float, float, bool]] = [
        ("leader, % of a core", leader["median"], LEADER_CORE_PERCENT, leader["median"] < LEADER_CORE_PERCENT)
    ]
    for name, one in (("killed", killed), ("frozen", frozen)):
        worst_s = max(one["all_noticed_everywhere_s"], one["leader_s"])
        held = one["unnoticed"] == 0 and one["leader_missed"] == 0 and worst_s <= NOTICED_S
        rows.append((f"{name} nodes noticed by all, s", worst_s, NOTICED_S, held))
    rows.append(("false deaths", len(false), 0, not false))
    rows.append(("tasks lost", document["tasks_lost"], 0, document["tasks_lost"] == 0))
    return [{"what": what, "measured": value, "mark": mark, "holds": holds} for what, value, mark, holds in rows]
