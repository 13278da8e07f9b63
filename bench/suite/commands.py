"""`python -m bench run`, `list`, `compare`, `report`: the suite from the command line."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from bench.measure import BenchFailed
from bench.suite import compare, events, references, report_html, report_text, running, spreading, store
from bench.suite import model as suite
from bench.suite.events import progress_bar
from bench.suite.table import BENCHMARKS
from mesh.client import Mesh


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The suite's commands, beside the single cases."""
    run = commands.add_parser("run", help="the eight workloads, repeated until steady, every answer checked")
    run.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(BENCHMARKS)}")
    how = run.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="a look: a minute and a half on two cores")
    how.add_argument("--full", action="store_true", help="a result: up to ten minutes on two cores (the default)")
    run.add_argument("--cores", type=int, metavar="N", help="give the work so many cores [all]")
    run.add_argument("--mesh", metavar="URL", help="measure nodes of the mesh behind that node's API or bus")
    run.add_argument("--node", action="append", metavar="ID", help="of --mesh: only this node (may be repeated) [all]")
    run.add_argument("--events", action="store_true", help="progress as JSON lines on stdout, for a program")
    commands.add_parser("list", help="the benchmarks, their figures and the latest run")
    two = commands.add_parser("compare", help="whether two runs differ, figure by figure")
    two.add_argument("before", help="a run: its name, its file, `last`, `last-1` …")
    two.add_argument("after", help="another one")
    scale = commands.add_parser("scale", help="how a workload scales from one node of a mesh to all of them")
    scale.add_argument("names", nargs="*", metavar="NAME", help=f"only these: {', '.join(BENCHMARKS)}")
    scale.add_argument("--mesh", metavar="URL", required=True, help="any node's API, or the bus")
    scale.add_argument("--quick", action="store_true", help="less work: a look")
    report = commands.add_parser("report", help="a run beside published figures of other machines")
    report.add_argument("which", nargs="?", default="last", metavar="RUN", help="its name, its file, or `last`")
    report.add_argument("--html", metavar="FILE", help="write a page with plots")
    report.add_argument("--markdown", metavar="FILE", help="write a page for docs")
    for one in (run, two, scale, report, commands.choices["list"]):
        one.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
        one.add_argument("--out", type=Path, default=store.default_folder(), metavar="DIR", help="where runs are kept")
        one.set_defaults(act=_ACTS[one.prog.rpartition(" ")[2]])


def _run(flags: argparse.Namespace) -> int:
    _check(flags.names)
    if flags.node and not flags.mesh:
        raise BenchFailed("--node names a node of a mesh; say which mesh with --mesh URL")
    chosen, run = [BENCHMARKS[name] for name in flags.names or BENCHMARKS], store.new_run()
    made = running.Run(run, chosen, flags.quick, lambda outcome: store.append(flags.out, outcome))
    with events.Lines() if flags.events else progress_bar(len(chosen)) as told:
        if flags.mesh:
            outcomes = asyncio.run(made.on_mesh(flags.mesh, flags.node or [], told))
        else:
            outcomes = asyncio.run(made.here(flags.cores, told))
    if not flags.events:
        _show(flags, outcomes, f"run {run}; `python -m bench report` sets it beside published figures")
    return 0 if all(one.state == "ok" for one in outcomes) else 1


def _scale(flags: argparse.Namespace) -> int:
    _check(flags.names)
    found = asyncio.run(_spread(flags))
    if flags.json:
        print(json.dumps(spreading.document(found), indent=2))
    else:
        Console().print(report_text.spread(found))
    return 0


async def _spread(flags: argparse.Namespace) -> dict[str, list[spreading.Step]]:
    found = {}
    async with Mesh(flags.mesh) as mesh:
        nodes = [one for one in await mesh.nodes() if one.state == "up"]
        for name in flags.names or BENCHMARKS:
            print(f"bench: {name} on 1 to {len(nodes)} nodes", file=sys.stderr, flush=True)
            found[name] = await spreading.spread(mesh, BENCHMARKS[name], nodes, flags.quick)
    return found


def _check(names: Sequence[str]) -> None:
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        raise BenchFailed(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")


def _list(flags: argparse.Namespace) -> int:
    latest: dict[str, suite.Outcome] = {}
    for name in store.runs(flags.out):
        latest |= {one.benchmark: one for one in store.read(name, flags.out)}
    if flags.json:
        print(json.dumps({name: _last(latest.get(name)) for name in BENCHMARKS}, indent=2))
        return 0
    console = Console()
    for name, benchmark in BENCHMARKS.items():
        console.print(f"[bold]{name}[/]  {benchmark.title}  [dim]{_last(latest.get(name))}[/]", highlight=False)
    return 0


def _last(outcome: suite.Outcome | None) -> str:
    if outcome is None:
        return "never run"
    if outcome.state != "ok":
        return f"{outcome.state}: {outcome.reason}"
    name, measured = next(iter(outcome.figures.items()))
    return f"{name} {report_text.number(measured.median)} {measured.unit}, run {outcome.run}"


def _compare(flags: argparse.Namespace) -> int:
    found = compare.compare(store.read(flags.before, flags.out), store.read(flags.after, flags.out))
    if flags.json:
        print(msgspec.json.encode(found).decode())
    else:
        Console().print(report_text.differences(found))
    return 0


def _report(flags: argparse.Namespace) -> int:
    outcomes = store.read(flags.which, flags.out)
    rows = references.beside(outcomes)
    for target, make in ((flags.html, report_html.page), (flags.markdown, report_text.markdown)):
        if target:
            try:
                Path(target).write_text(make(outcomes, rows), encoding="utf-8")
            except OSError as error:
                raise BenchFailed(f"{target} can't be written ({error.strerror})") from None
            print(f"bench: wrote {target}", file=sys.stderr)
    _show(flags, outcomes, report_text.head(outcomes[0]), rows)
    return 0


def _show(
    flags: argparse.Namespace,
    outcomes: Sequence[suite.Outcome],
    words: str,
    rows: Sequence[references.Row] = (),
) -> None:
    if flags.json:
        document = {"outcomes": list(outcomes), "beside": [_plain(row) for row in rows]}
        print(msgspec.json.format(msgspec.json.encode(document)).decode())
        return
    console = Console()
    console.print(report_text.figures(outcomes))
    if rows:
        console.print()
        console.print(report_text.beside(rows))
    console.print(f"[dim]{words}[/]", highlight=False)


def _plain(row: references.Row) -> dict[str, object]:
    return {"figure": row.figure, "unit": row.unit, "here": row.ours, "ratio": row.ratio, "published": row.reference}


_ACTS = {"run": _run, "scale": _scale, "list": _list, "compare": _compare, "report": _report}
