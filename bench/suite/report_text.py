"""A run as text for a terminal, and as Markdown for docs/benchmarks.md."""

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
    """`value` with three or four significant digits."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if value < 10 else f"{value:.1f}"


def figure_text(measured: Measured) -> tuple[str, str]:
    """(median with its unit, the interval and the spread)."""
    interval = f"{number(measured.low)} to {number(measured.high)}"
    return f"{number(measured.median)} {measured.unit}", f"{interval}, {measured.spread:.0%} of {len(measured.samples)}"


def figures(outcomes: Sequence[Outcome]) -> RenderableType:
    """Every figure of a run; a benchmark without figures with the reason."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("benchmark", "figure", "median", "interval, spread"):
        table.add_column(name, overflow="fold")
    for outcome in outcomes:
        if outcome.state != "ok":
            table.add_row(outcome.benchmark, Text(outcome.state, style="red"), "", outcome.reason)
        for name, measured in outcome.figures.items():
            middle, rest = figure_text(measured)
            table.add_row(outcome.benchmark, name, middle, rest)
    return Group(table, *(Text(line, style="yellow") for line in remarks(outcomes)))


def remarks(outcomes: Iterable[Outcome]) -> list[str]:
    """What a reader must know about the figures."""
    outcomes = list(outcomes)
    found = [f"{each.benchmark}: a busy machine: {each.conditions.busy}" for each in outcomes if each.conditions.busy]
    found += [f"{each.benchmark}: the machine throttled its clock" for each in outcomes if each.conditions.throttled]
    if any(each.quick for each in outcomes):
        found.append("A quick run: less work and fewer repetitions; a look, not a result.")
    return found


def head(outcome: Outcome) -> str:
    """When, on which machine, and at which commit it ran."""
    machine = outcome.machine
    at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(outcome.at))
    where = f"{machine.get('cpu', '?')}, {machine.get('cores', '?')} cores, {machine.get('memory_gib', '?')} GiB"
    return f"{at}, {where}, {machine.get('system', '?')}, commit {outcome.commit or 'unknown'}"


def beside(rows: Sequence[Row]) -> RenderableType:
    """This machine beside published figures, two lines each; a ratio only where the two can be compared."""
    lines: list[RenderableType] = []
    shown = ""
    for row in rows:
        reference = row.reference
        if row.figure != shown:
            shown = row.figure
            lines.append(Text.assemble("\n", (row.figure, "bold"), f"  here {number(row.ours)} {row.unit}"))
        ratio = (
            reference.relation
            if row.ratio is None
            else f"{reference.relation}: this machine has {row.ratio:.3g} times that"
        )
        value = f"{number(reference.scaled)} {row.unit}" if row.ratio else f"{number(reference.value)} {reference.unit}"
        style = "yellow" if row.ratio is None else ""
        lines.append(Text.assemble(f"  {reference.device}  {value}  ", (ratio, style)))
        lines.append(Text(f"    {reference.condition}; {reference.how}; {reference.source} ({reference.year})", "dim"))
    return Group(*lines)


def differences(found: Sequence[Difference]) -> RenderableType:
    """The comparison of two runs, figure by figure."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("benchmark", "figure", "before", "after", "verdict", "why"):
        table.add_column(name, overflow="fold")
    for each in found:
        before, after = (f"{number(value)} {each.unit}" if each.figure else "" for value in (each.before, each.after))
        verdict = Text(each.verdict, style=_STYLES[each.verdict])
        table.add_row(each.benchmark, each.figure, before, after, verdict, each.reason)
    return table


def spread(found: Mapping[str, Sequence[Step]]) -> RenderableType:
    """The throughput of each workload on one node up to all, and how the node-seconds were used."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("benchmark", "nodes", "tasks/s", "efficiency", "useful", "slower", "idle"):
        table.add_column(name)
    for benchmark, steps in found.items():
        for step in steps:
            shares = (f"{share:.0%}" for share in (step.efficiency, step.useful, step.slower, step.idle))
            table.add_row(benchmark, str(step.nodes), number(step.per_s), *shares)
    return table


def markdown(outcomes: Sequence[Outcome], rows: Sequence[Row]) -> str:
    """The run as a Markdown page."""
    lines = [f"{head(outcomes[0])}.", ""]
    lines += [f"- {remark}" for remark in remarks(outcomes)] + [""]
    lines += ["| benchmark | figure | median | interval, spread |", "|---|---|---|---|"]
    for outcome in outcomes:
        title = BENCHMARKS[outcome.benchmark].title if outcome.benchmark in BENCHMARKS else outcome.benchmark
        if outcome.state != "ok":
            lines.append(f"| {title} | | {outcome.state} | {_cell(outcome.reason)} |")
        for name, measured in outcome.figures.items():
            middle, rest = figure_text(measured)
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
