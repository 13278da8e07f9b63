"""Examine this machine, its network and its node: what is wrong, and what to do about it. Changes nothing."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from api.cli.input.arguments import seconds
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK, TASK_FAILED
from mesh.version import program_version

HELP = "what is wrong on this machine, and what to do about it"
MARKS = {"ok": "ok   ", "warn": "warn ", "fail": "FAIL "}


def add(parser: argparse.ArgumentParser) -> None:
    """The options of a node that matter here, with the same environment variables."""
    parser.add_argument("--mesh", default=os.environ.get("QUEZTL_MESH") or "queztl", metavar="NAME")
    parser.add_argument("--interface", default=os.environ.get("QUEZTL_INTERFACE", ""), metavar="IFACE")
    parser.add_argument("--data", type=Path, default=os.environ.get("QUEZTL_DATA") or None, metavar="DIR")
    parser.add_argument("--listen", type=seconds, metavar="S", help="wait at most S seconds for the first node [10]")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print the findings; the exit code is 1 when something does not work."""
    from mesh.doctor.collect import LISTEN_S, PATIENCE_S, examine
    from mesh.node_api import API_SCHEMES, LOCAL_API, mesh_address

    address = mesh_address(args.url)
    api = address if address.startswith(API_SCHEMES) else LOCAL_API
    out.note("examining this machine and listening for nodes, a few seconds…")
    patience_s = PATIENCE_S if args.listen is None else args.listen
    findings = await examine(
        args.mesh,
        interface=args.interface,
        data=args.data,
        api=api,
        version=program_version(),
        listen_s=min(LISTEN_S, patience_s),
        patience_s=patience_s,
    )
    if out.as_json:
        out.document({"findings": findings})
    for finding in findings:
        if finding.level == "ok" and out.quiet:
            continue
        out.marked(finding.level, MARKS[finding.level], finding.what)
        if finding.what_to_do:
            out.wrapped(f"     -> {finding.what_to_do}", indent=" " * 8)
    return TASK_FAILED if any(finding.level == "fail" for finding in findings) else OK
