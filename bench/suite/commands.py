"""The suite's commands: `python -m bench run`, `list`, `compare`, `scale` and `report`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from bench.harness.measure import BenchFailed
from bench.suite import compare, events, references, report_html, report_text, running, spreading, store
from bench.suite import model as suite
from bench.suite.events import ProgressBar
from bench.suite.table import BENCHMARKS
from mesh.client import Mesh
from mesh.errors import BadInput
from mesh.files import check_output, draft_of


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the suite's commands to those of the single benchmarks."""
    run = commands.add_parser("run", help="the eight workloads, repeated until steady, every answer checked")
    run.add_argument("names", nargs="*", metavar="NAME", help=f"run only these: {', '.join(BENCHMARKS)}")
    how = run.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="a look: 90 seconds on two cores")
    how.add_argument("--full", action="store_true", help="a result: up to ten minutes on two cores (the default)")
    run.add_argument("--cores", type=int, metavar="N", help="number of cores for the work [all]")
    run.add_argument("--mesh", metavar="URL", help="measure nodes of a mesh: the URL of a node's API, or of the bus")
    run.add_argument(
        "--node", action="append", metavar="ID", help="with --mesh: measure only this node (may be repeated) [all]"
    )
    run.add_argument("--events", action="store_true", help="print progress as JSON lines on stdout")
    commands.add_parser("list", help="the benchmarks, their figures and the latest run")
    two = commands.add_parser("compare", help="whether two runs differ, figure by figure")
    two.add_argument("before", help="a run: its name, its file, `last`, `last-1` …")
    two.add_argument("after", help="another run")
    scale = commands.add_parser("scale", help="how a workload scales from one node of a mesh to all of them")
    scale.add_argument("names", nargs="*", metavar="NAME", help=f"run only these: {', '.join(BENCHMARKS)}")
    scale.add_argument("--mesh", metavar="URL", required=True, help="the URL of a node's API, or of the bus")
    scale.add_argument("--quick", action="store_true", help="less work: a look")
    report = commands.add_parser("report", help="a run beside published figures of other machines")
    report.add_argument("which", nargs="?", default="last", metavar="RUN", help="a run: its name, its file, or `last`")
    report.add_argument("--html", metavar="FILE", help="write a page with plots")
    report.add_argument("--markdown", metavar="FILE", help="write a page for docs")
    report.add_argument("--force", action="store_true", help="replace the page if it exists")
    for command in (run, two, scale, report, commands.choices["list"]):
        command.add_argument("--json", action="store_true", help="print one JSON document, and nothing else")
        command.add_argument(
            "--out", type=Path, default=store.default_folder(), metavar="DIR", help="the folder of the runs"
        )
        command.set_defaults(action=_ACTIONS[command.prog.rpartition(" ")[2]])


def _run(flags: argparse.Namespace) -> int:
    _check(flags.names)
    if flags.node and not flags.mesh:
        raise BenchFailed("--node names a node of a mesh; name the mesh with --mesh URL")
    chosen, run = [BENCHMARKS[name] for name in flags.names or BENCHMARKS], store.new_run()
    suite_run = running.Run(run, chosen, flags.quick, lambda outcome: store.append(flags.out, outcome))
    with events.Lines() if flags.events else ProgressBar(len(chosen)) as on_progress:
        if flags.mesh:
            outcomes = asyncio.run(suite_run.on_mesh(flags.mesh, flags.node or [], on_progress))
        else:
            outcomes = asyncio.run(suite_run.here(flags.cores, on_progress))
    if not flags.events:
        _show(flags, outcomes, f"run {run}; `python -m bench report` compares it with published figures")
    return 0 if all(outcome.state == "ok" for outcome in outcomes) else 1


def _scale(flags: argparse.Namespace) -> int:
    _check(flags.names)
    found = asyncio.run(_spread(flags))
    if flags.json:
        print(json.dumps(spreading.document(found), indent=2))
    else:
        Console().print(report_text.spread(found))
    return 0


async def _spread(flags: argparse.Namespace) -> dict[str, list[spreading.Step]]:
    found: dict[str, list[spreading.Step]] = {}
    async with Mesh(flags.mesh) as mesh:
        nodes = [node for node in await mesh.nodes() if node.state == "up"]
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
        latest |= {outcome.benchmark: outcome for outcome in store.read(name, flags.out)}
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
                check_output(Path(target), flags.force)
                with draft_of(Path(target), flags.force) as draft:
                    draft.write_text(make(outcomes, rows), encoding="utf-8")
            except BadInput as error:
                raise BenchFailed(error.message) from None
            except OSError as error:
                raise BenchFailed(f"{target} can't be written ({error.strerror})") from None
            print(f"bench: wrote {target}", file=sys.stderr)
    _show(flags, outcomes, report_text.head(outcomes[0]), rows)
    return 0


def _show(
    flags: argparse.Namespace,
    outcomes: Sequence[suite.Outcome],
    summary: str,
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
    console.print(f"[dim]{summary}[/]", highlight=False)


def _plain(row: references.Row) -> dict[str, object]:
    return {"figure": row.figure, "unit": row.unit, "here": row.ours, "ratio": row.ratio, "published": row.reference}


_ACTIONS = {"run": _run, "scale": _scale, "list": _list, "compare": _compare, "report": _report}
