"""A run as people read it in a terminal, and as Markdown for docs/benchmarks.md."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bench.suite.compare import Difference
from bench.suite.model import Measured, Outcome
from bench.suite.references import Row
from bench.suite.spreading import Step
from bench.suite.table import BENCHMARKS

_STYLES = {"better": "green", "worse": "red", "no difference": "", "not comparable": "yellow"}


def number(value: float) -> str:
    """Three or four digits that matter."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if value < 10 else f"{value:.1f}"


def figure_words(measured: Measured) -> tuple[str, str]:
    """(median with its unit, the interval and the spread)."""
    interval = f"{number(measured.low)} to {number(measured.high)}"
    return f"{number(measured.median)} {measured.unit}", f"{interval}, {measured.spread:.0%} of {len(measured.samples)}"


def figures(outcomes: Sequence[Outcome]) -> RenderableType:
    """Every figure of a run, and what has none with the reason."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("benchmark", "figure", "median", "interval, spread"):
        table.add_column(name, overflow="fold")
    for outcome in outcomes:
        if outcome.state != "ok":
            table.add_row(outcome.benchmark, Text(outcome.state, style="red"), "", outcome.reason)
        for name, measured in outcome.figures.items():
            middle, rest = figure_words(measured)
            table.add_row(outcome.benchmark, name, middle, rest)
    return Group(table, *(Text(line, style="yellow") for line in remarks(outcomes)))


def remarks(outcomes: Iterable[Outcome]) -> list[str]:
    """What a reader must know before he believes a figure."""
    found = [f"{one.benchmark}: a busy machine: {one.conditions.busy}" for one in outcomes if one.conditions.busy]
    found += [f"{one.benchmark}: the processor's clock fell: throttled" for one in outcomes if one.conditions.throttled]
    if any(one.quick for one in outcomes):
        found.append("A quick run: less work and fewer repetitions; a look, not a result.")
    return found


def head(outcome: Outcome) -> str:
    """On what, when, and which commit."""
    machine = outcome.machine
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(outcome.at))
    where = f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores, {machine.get('memory_gib', '?')} GiB"
    return f"{at}, {where}, {machine.get('system', '?')}, commit {outcome.commit or 'unknown'}"


def beside(rows: Sequence[Row]) -> RenderableType:
    """This machine beside published figures, two lines each; a ratio only where it means something."""
    lines: list[RenderableType] = []
    shown = ""
    for row in rows:
        reference = row.reference
        if row.figure != shown:
            shown = row.figure
            lines.append(Text.assemble("\n", (row.figure, "bold"), f"  here {number(row.ours)} {row.unit}"))
        ratio = reference.relation if row.ratio is None else f"{reference.relation}: here is {row.ratio:.3g} times that"
        value = f"{number(reference.scaled)} {row.unit}" if row.ratio else f"{number(reference.value)} {reference.unit}"
        style = "yellow" if row.ratio is None else ""
        lines.append(Text.assemble(f"  {reference.device}  {value}  ", (ratio, style)))
        lines.append(Text(f"    {reference.condition}; {reference.how}; {reference.source} ({reference.year})", "dim"))
    return Group(*lines)


def differences(found: Sequence[Difference]) -> RenderableType:
    """Two runs, figure by figure."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("benchmark", "figure", "before", "after", "verdict", "why"):
        table.add_column(name, overflow="fold")
    for one in found:
        before, after = (f"{number(value)} {one.unit}" if one.figure else "" for value in (one.before, one.after))
        table.add_row(
            one.benchmark, one.figure, before, after, Text(one.verdict, style=_STYLES[one.verdict]), one.reason
        )
    return table


def spread(found: Mapping[str, Sequence[Step]]) -> RenderableType:
    """Each workload on one node to all, and where the rest went."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("benchmark", "nodes", "tasks/s", "efficiency", "useful", "slower", "idle"):
        table.add_column(name)
    for benchmark, steps in found.items():
        for step in steps:
            shares = (f"{one:.0%}" for one in (step.efficiency, step.useful, step.slower, step.idle))
            table.add_row(benchmark, str(step.nodes), number(step.per_s), *shares)
    return table


def markdown(outcomes: Sequence[Outcome], rows: Sequence[Row]) -> str:
    """The same as the terminal shows, as a page."""
    lines = [f"{head(outcomes[0])}.", ""]
    lines += [f"- {remark}" for remark in remarks(outcomes)] + [""]
    lines += ["| benchmark | figure | median | interval, spread |", "|---|---|---|---|"]
    for outcome in outcomes:
        title = BENCHMARKS[outcome.benchmark].title if outcome.benchmark in BENCHMARKS else outcome.benchmark
        if outcome.state != "ok":
            lines.append(f"| {title} | | {outcome.state} | {_cell(outcome.reason)} |")
        for name, measured in outcome.figures.items():
            middle, rest = figure_words(measured)
            lines.append(f"| {title} | `{name}` | {middle} | {rest} |")
    lines += ["", "| figure | here | published | device | condition | comparable? | ratio | source |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        reference = row.reference
        published = f"{number(reference.value)} {reference.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        cells = (
            f"`{row.figure}`", f"{number(row.ours)} {row.unit}", published, reference.device, reference.condition,
            f"{reference.relation}: {reference.how}", ratio, f"{reference.source} ({reference.year})",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
