"""The benchmark suite on nodes of the mesh: the last results, and new runs.

queztl bench run crypto_mining --all
"""

from __future__ import annotations

import argparse
from time import time
from typing import Any

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK, TASK_FAILED
from api.cli.output.formatting import moment

HELP = "benchmarks of nodes: list, run"
_PATH = "/benchmarks/realworld"
LOOK_EVERY_S = 1.0


def add(parser: argparse.ArgumentParser) -> None:
    """`bench list | run [NAME…]`"""
    actions = parser.add_subparsers(dest="action", metavar="list|run", required=True)
    actions.add_parser("list", help="every benchmark and the last result on each node")
    running = actions.add_parser("run", help="measure a node, or several one after the other")
    running.add_argument("names", metavar="NAME", nargs="*", help="only these benchmarks [all]")
    running.add_argument("--node", action="append", metavar="ID", help="on this node (may be repeated) [the one asked]")
    running.add_argument("--all", action="store_true", help="on every node of the mesh")
    running.add_argument("--quick", action="store_true", help="less work and fewer repetitions: a look, not a result")
    running.add_argument("--detach", action="store_true", help="print the run's id and leave it running")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Do it. Raises: BadInput, Conflict, NotFound, BusUnavailable."""
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
    known = await call_node(args.url, "GET", _PATH)
    chosen = [one for one in known["benchmarks"] if one["name"] in begun["names"]]
    for one in chosen:
        one["nodes"] = [outcome for outcome in one["nodes"] if outcome["node"] in begun["nodes"]]
    _list({"benchmarks": chosen}, out)
    states = {outcome["state"] for one in chosen for outcome in one["nodes"]}
    return OK if ended["state"] == "done" and states <= {"ok"} else TASK_FAILED


async def _until_ended(url: str | None, run_: dict[str, Any], out: Output) -> dict[str, Any]:
    import asyncio

    from api.cli.input.network import call_node

    path, said = f"{_PATH}/runs/{run_['id']}", ""
    try:
        while True:
            run_ = await call_node(url, "GET", path)
            now = f"{run_['benchmark']} on {run_['node']} ({run_['done'] + 1} of {run_['total']})"
            if run_["state"] not in ("starting", "running"):
                return run_
            if run_["benchmark"] and now != said:
                said = now
                out.note(now)
            await asyncio.sleep(LOOK_EVERY_S)
    except asyncio.CancelledError:
        await call_node(url, "DELETE", path)
        raise


def _list(document: dict[str, Any], out: Output) -> int:
    if out.as_json:
        out.document(document)
        return OK
    now = time()
    rows = [
        (one["name"], *row) for one in document["benchmarks"] for row in _rows(one, now) or [("never run", "", "", "")]
    ]
    out.table(("benchmark", "result", "spread", "node", "when"), rows)
    return OK


def _rows(benchmark: dict[str, Any], now: float) -> list[tuple[str, str, str, str]]:
    rows = []
    for outcome in benchmark["nodes"]:
        figure = outcome["figures"].get(outcome["headline"])
        at = moment(outcome["at"], now)
        if figure is None:
            rows.append((outcome["state"], outcome["reason"][:60], outcome["node"], at))
            continue
        quick = " (quick)" if outcome["quick"] else ""
        middle, spread = f"{figure['median']:,.4g} {figure['unit']}", f"{figure['spread']:.0%}{quick}"
        rows.append((middle, spread, outcome["node"], at))
    return rows
