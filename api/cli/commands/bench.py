"""Benchmarks of nodes: the last results, and new runs.

queztl bench run crypto_mining --all
"""

from __future__ import annotations

import argparse
from time import time
from typing import Any

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK, TASK_FAILED
from api.cli.output.formatting import ago
from api.cli.output.table import Column

HELP = "benchmarks of nodes: list, run"
COLUMNS = (
    Column("benchmark"), Column("result", wraps=True), Column("spread", drop=2), Column("node", wraps=True),
    Column("when", drop=1),
)  # fmt: skip
_PATH = "/benchmarks/realworld"
POLL_EVERY_S = 1.0
MAX_REASON_CHARACTERS = 60


def add(parser: argparse.ArgumentParser) -> None:
    """`bench list | run [NAME…]`"""
    actions = parser.add_subparsers(dest="action", metavar="list|run", required=True)
    actions.add_parser("list", help="every benchmark and the last result on each node")
    running = actions.add_parser("run", help="measure a node, or several one after the other")
    running.add_argument("names", metavar="NAME", nargs="*", help="only these benchmarks [all]")
    running.add_argument(
        "--node", action="append", metavar="ID", help="on this node (may be repeated) [the node that --url names]"
    )
    running.add_argument("--all", action="store_true", help="on every node of the mesh")
    running.add_argument("--quick", action="store_true", help="less work, fewer repetitions: an estimate, not a result")
    running.add_argument("--detach", action="store_true", help="print the run's id and leave it running")


async def run(args: argparse.Namespace, out: Output) -> int:
    """List results or run benchmarks. Raises: BadInput, Conflict, NotFound, BusUnavailable."""
    from api.cli.input.network import call_node

    if args.action == "list":
        return _list(await call_node(args.url, "GET", _PATH), out)
    body = {"names": args.names, "nodes": "all" if args.all else args.node, "quick": args.quick}
    begun = await call_node(args.url, "POST", f"{_PATH}/run", body)
    if args.detach:
        out.line(begun["id"])
        if out.as_json:
            out.document(begun)
        return OK
    out.note(f"benchmark run {begun['id']}; Ctrl-C stops it")
    ended = await _until_ended(args.url, begun, out)
    if ended["state"] == "failed":
        out.note(f"the run failed: {ended['reason']}")
    latest = await call_node(args.url, "GET", _PATH)
    chosen = [benchmark for benchmark in latest["benchmarks"] if benchmark["name"] in begun["names"]]
    for benchmark in chosen:
        benchmark["nodes"] = [outcome for outcome in benchmark["nodes"] if outcome["node"] in begun["nodes"]]
    _list({"benchmarks": chosen}, out)
    states = {outcome["state"] for benchmark in chosen for outcome in benchmark["nodes"]}
    return OK if ended["state"] == "done" and states <= {"ok"} else TASK_FAILED


async def _until_ended(url: str | None, run_: dict[str, Any], out: Output) -> dict[str, Any]:
    import asyncio

    from api.cli.input.network import call_node

    path, printed = f"{_PATH}/runs/{run_['id']}", ""
    try:
        while True:
            run_ = await call_node(url, "GET", path)
            if run_["state"] not in ("starting", "running"):
                return run_
            step = f"{run_['benchmark']} on {run_['node']} ({run_['done'] + 1} of {run_['total']})"
            if run_["benchmark"] and step != printed:
                printed = step
                out.note(step)
            await asyncio.sleep(POLL_EVERY_S)
    except asyncio.CancelledError:
        await call_node(url, "DELETE", path)
        raise


def _list(document: dict[str, Any], out: Output) -> int:
    if out.as_json:
        out.document(document)
        return OK
    now = time()
    rows = [
        (benchmark["name"], *row)
        for benchmark in document["benchmarks"]
        for row in _rows(benchmark, now) or [("never run", "", "", "")]
    ]
    out.table(COLUMNS, rows)
    return OK


def _rows(benchmark: dict[str, Any], now: float) -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for outcome in benchmark["nodes"]:
        figure = outcome["figures"].get(outcome["headline"])
        when = ago(outcome["at"], now)
        if figure is None:
            result, spread = f"{outcome['state']}: {outcome['reason'][:MAX_REASON_CHARACTERS]}".rstrip(": "), ""
        else:
            result = f"{figure['median']:,.4g} {figure['unit']}"
            spread = f"{figure['spread']:.0%}{' (quick)' if outcome['quick'] else ''}"
        rows.append((result, spread, outcome["node"], when))
    return rows
