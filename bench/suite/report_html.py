"""A run as one HTML page with plots; the page loads nothing, so it can be mailed and archived."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bench.suite.model import Measured, Outcome
from bench.suite.references import Row
from bench.suite.report_text import figure_text, head, number, remarks
from bench.suite.table import BENCHMARKS

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --ours: #0969da; --other: #9aa4af;
  --warn: #9a6700; --paper: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --ours: #4493f8;
  --other: #656c76; --warn: #d29922; --paper: #0d1117 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1000px;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line) }
.soft { color: var(--soft) } .warn { color: var(--warn) } svg { width: 100%; height: auto; overflow: visible }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif } .axis { stroke: var(--line) }
table { border-collapse: collapse; width: 100%; font-size: 13px }
td, th { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.n { text-align: right; white-space: nowrap }
details { margin: .5rem 0 }
"""
_LEFT, _WIDTH, _BAR = 250, 960, 20


def page(outcomes: Sequence[Outcome], rows: Sequence[Row]) -> str:
    """The whole page."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>Queztl benchmarks</title><style>{_STYLE}</style>",
        f"<h1>Queztl benchmarks</h1><p class=soft>{escape(head(outcomes[0]))}</p>",
        *(f"<p class=warn>{escape(remark)}</p>" for remark in remarks(outcomes)),
    ]
    parts += [_benchmark(each, [row for row in rows if row.figure in each.figures]) for each in outcomes]
    return "\n".join(parts) + "\n"


def _benchmark(outcome: Outcome, rows: Sequence[Row]) -> str:
    title = BENCHMARKS[outcome.benchmark].title if outcome.benchmark in BENCHMARKS else ""
    parts = [f"<h2>{escape(outcome.benchmark)}</h2><p class=soft>{escape(title)}</p>"]
    if outcome.state != "ok":
        parts.append(f"<p class=warn>{escape(outcome.state)}: {escape(outcome.reason)}</p>")
    for name, measured in outcome.figures.items():
        middle, rest = figure_text(measured)
        parts.append(f"<p><b>{escape(name)}</b> {escape(middle)} <span class=soft>({escape(rest)})</span></p>")
        parts.append(samples_plot(measured))
        comparable = [row for row in rows if row.figure == name and row.ratio is not None]
        if comparable:
            parts.append(f"{bars_plot(comparable)}<p class=soft>{escape(measured.unit)}, a logarithmic axis</p>")
        others = [row for row in rows if row.figure == name]
        if others:
            parts.append(_table(others))
    return "\n".join(parts)


def samples_plot(measured: Measured) -> str:
    """Each repetition as a dot, the median as a line, its interval as a band; the axis begins at 0."""
    most = max(measured.samples) * 1.05 or 1.0
    wide = _WIDTH - _LEFT

    def x(value: float) -> float:
        return _LEFT + wide * value / most

    dots = "".join(
        f"<circle cx={x(sample):.1f} cy=14 r=4 fill=var(--ours) fill-opacity=.55>"
        f"<title>{number(sample)}</title></circle>"
        for sample in measured.samples
    )
    band = f"<rect x={x(measured.low):.1f} y=4 width={max(1.0, x(measured.high) - x(measured.low)):.1f} height=20 "
    return (
        f"<svg viewBox='0 0 {_WIDTH} 40' role=img aria-label='{len(measured.samples)} repetitions'>"
        f"<text x={_LEFT - 10} y=18 text-anchor=end>repetitions</text>"
        f"<line class=axis x1={_LEFT} x2={_WIDTH} y1=26 y2=26 />{band}fill=var(--ours) fill-opacity=.15 />{dots}"
        f"<line x1={x(measured.median):.1f} x2={x(measured.median):.1f} y1=2 y2=26 stroke=var(--ours) stroke-width=2 />"
        f"<text x={_LEFT} y=38>0</text>"
        f"<text x={_WIDTH} y=38 text-anchor=end>{number(most)} {escape(measured.unit)}</text></svg>"
    )


def bars_plot(rows: Sequence[Row]) -> str:
    """This machine and comparable ones on a logarithmic axis: they lie decades apart."""
    bars = [("this machine", rows[0].ours, "var(--ours)", "")]
    bars += [(row.reference.device, row.reference.scaled, "var(--other)", row.reference.condition) for row in rows]
    bars.sort(key=lambda bar: -bar[1])
    least = 10 ** math.floor(math.log10(min(value for _, value, _, _ in bars)))
    most = 10 ** math.ceil(math.log10(max(value for _, value, _, _ in bars) * 1.0001))
    decades, wide = math.log10(most / least), _WIDTH - _LEFT - 90
    height = _BAR * len(bars) + 24
    parts = [f"<svg viewBox='0 0 {_WIDTH} {height}' role=img aria-label='published figures'>"]
    for place in range(round(decades) + 1):
        x = _LEFT + wide * place / decades
        parts.append(f"<line class=axis x1={x:.1f} x2={x:.1f} y1=0 y2={height - 18} />")
        parts.append(f"<text x={x:.1f} y={height - 4} text-anchor=middle>{number(least * 10**place)}</text>")
    for line, (name, value, colour, condition) in enumerate(bars):
        y, long = line * _BAR, max(2.0, wide * math.log10(value / least) / decades)
        parts.append(
            f"<text x={_LEFT - 10} y={y + 14} text-anchor=end>{escape(_short(name))}</text>"
            f"<rect x={_LEFT} y={y + 3} width={long:.1f} height={_BAR - 6} fill={colour}>"
            f"<title>{escape(condition)}</title></rect>"
            f"<text x={_LEFT + long + 6:.1f} y={y + 14}>{number(value)}</text>"
        )
    return "".join([*parts, "</svg>"])


def _short(name: str) -> str:
    return name if len(name) <= 36 else name[:35] + "…"


def _table(rows: Sequence[Row]) -> str:
    lines: list[str] = []
    for row in rows:
        reference = row.reference
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        lines.append(
            f"<tr><td>{escape(reference.device)}<td class=n>{number(reference.value)} {escape(reference.unit)}"
            f"<td>{escape(reference.condition)}<td>{escape(reference.relation)}: {escape(reference.how)}"
            f"<td class=n>{ratio}<td>{escape(reference.source)} ({reference.year})"
        )
    return (
        f"<details><summary>{len(rows)} published figures, their conditions and sources</summary><table><tr><th>device"
        f"<th>published<th>condition<th>comparable?<th>here / published<th>source{''.join(lines)}</table></details>"
    )
