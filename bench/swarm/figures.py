"""Figures and verdicts of a swarm, from the logs of its nodes. Pure.

Times are seconds of this machine's monotonic clock, which all processes share.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from bench.harness.measure import spread

#: The marks for a mesh on one machine with two cores.
LEADER_CORE_PERCENT, NOTICED_S = 10.0, 5.0


@dataclass(frozen=True)
class Report:
    """The logs of the nodes of one process, or of several processes merged."""

    observers: int = 0
    gone: dict[str, tuple[int, float, float]] = field(default_factory=dict[str, tuple[int, float, float]])
    """node -> (how many nodes consider it gone, when the first did, when the last did)"""
    suspected: dict[str, int] = field(default_factory=dict[str, int])
    """node -> how often it was suspected"""
    done: dict[str, int] = field(default_factory=dict[str, int])
    """node -> tasks it has done"""

    @classmethod
    def of(cls, logs: Iterable[tuple[Mapping[str, float], Mapping[str, int]]], done: Mapping[str, int]) -> Report:
        """The report of nodes, from each one's (node -> when it was gone, node -> how often it was suspected)."""
        return merge(
            Report(1, {node: (1, at, at) for node, at in gone.items()}, dict(suspected)) for gone, suspected in logs
        )._with_done(done)

    def _with_done(self, done: Mapping[str, int]) -> Report:
        return Report(self.observers, self.gone, self.suspected, dict(done))

    def as_json(self) -> dict[str, Any]:
        """The report as plain data, for the parent process."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Report:
        """The report of plain data."""
        gone = {node: (int(count), first, last) for node, (count, first, last) in document["gone"].items()}
        return cls(document["observers"], gone, dict(document["suspected"]), dict(document["done"]))


def merge(reports: Iterable[Report]) -> Report:
    """The reports of several processes as one."""
    observers, gone, suspected, done = 0, dict[str, tuple[int, float, float]](), dict[str, int](), dict[str, int]()
    for report in reports:
        observers += report.observers
        for node, (count, first, last) in report.gone.items():
            before = gone.get(node, (0, first, last))
            gone[node] = (before[0] + count, min(before[1], first), max(before[2], last))
        for node, times in report.suspected.items():
            suspected[node] = suspected.get(node, 0) + times
        done.update(report.done)
    return Report(observers, gone, suspected, done)


def deaths(report: Report, dead: Collection[str], died_at: float) -> dict[str, Any]:
    """How soon the living observers noticed all of `dead` (seconds), how many never did, and which deaths were false.

    `false_deaths`: living nodes that any observer considered gone; `suspected_living`: those it suspected for a while.
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
    """Percentage of a core that each process used over a window, from its CPU seconds."""
    return {name: round(100 * (after[name] - before[name]) / window_s, 2) for name in before if name in after}


def summed(windows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """process -> median, lowest and highest value over several windows"""
    names = {name for window in windows for name in window}
    found: dict[str, dict[str, float]] = {}
    for name in sorted(names):
        values = [window[name] for window in windows if name in window]
        found[name] = {"median": round(median(values), 2), "low": min(values), "high": max(values)}
    return found


def each(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """One figure over several rounds: median, spread, and all values."""
    return {
        "median": round(median(values), digits),
        "spread": round(spread(values), 3),
        "rounds": [round(value, digits) for value in values],
    }


def verdicts(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For each mark what was measured, and whether it holds."""
    killed, frozen = document["deaths"]["killed"], document["deaths"]["frozen"]
    leader = document["cpu_core_percent"]["leader"]
    false = sorted({*killed["false_deaths"], *frozen["false_deaths"], *document["false_deaths_before"]})
    rows: list[tuple[str, float, float, bool]] = [
        ("leader, % of a core", leader["median"], LEADER_CORE_PERCENT, leader["median"] < LEADER_CORE_PERCENT)
    ]
    for name, death in (("killed", killed), ("frozen", frozen)):
        worst_s = max(death["all_noticed_everywhere_s"], death["leader_s"])
        held = death["unnoticed"] == 0 and death["leader_missed"] == 0 and worst_s <= NOTICED_S
        rows.append((f"{name} nodes noticed by all, s", worst_s, NOTICED_S, held))
    rows.append(("false deaths", len(false), 0, not false))
    rows.append(("tasks lost", document["tasks_lost"], 0, document["tasks_lost"] == 0))
    return [{"what": what, "measured": value, "mark": mark, "holds": holds} for what, value, mark, holds in rows]
