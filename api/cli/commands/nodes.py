"""Every node of the mesh: how it is, what it has, what it can do. `*` marks the master."""

from __future__ import annotations

import argparse
from typing import Any

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import duration, size

HELP = "the nodes: state, load, hardware, kinds"
COLUMNS = (
    "name", "id", "state", "slots", "queued", "cpu", "memory", "cores", "accelerators", "kinds", "region", "seen",
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print them."""
    from api.cli.input.network import network_document

    document = await network_document(args.url)
    if out.as_json:
        out.document(document)
        return OK
    nodes = document["registry"]["nodes"]
    out.table(COLUMNS, [row(node) for node in nodes], empty="there is no node in this mesh")
    if not args.quiet:
        for sentence in missing(nodes):
            out.line(sentence)
        for alarm in document.get("alarms", ()):
            out.line(f"alarm: {alarm}")
    return OK


def row(node: dict[str, Any]) -> tuple[object, ...]:
    """One node's cells."""
    able, load = node["capabilities"], node["load"]
    memory = able.get("memory_bytes", 0)
    used = load.get("memory_used_bytes", 0)
    kinds = [one["kind"] if one["available"] else f"-{one['kind']}" for one in able.get("kinds", ())]
    return (
        f"{node['name']} *" if node["master"] else node["name"],
        node["id"],
        node["state"],
        f"{node['running']}/{node['slots']}",
        node["queued"],
        f"{load['cpu_percent']:.0f} %" if "cpu_percent" in load else "-",
        f"{size(used)} of {size(memory)}" if memory and used else size(memory) if memory else "-",
        able.get("cores", "-"),
        ", ".join(f"{one['type']} {one['name']}" for one in able.get("accelerators", ())) or "-",
        " ".join(kinds) or "-",
        node["region"] or "-",
        f"{duration(node['last_seen_s'])} ago" if node["last_seen_s"] >= 0 else "never",
    )


def missing(nodes: list[dict[str, Any]]) -> list[str]:
    """Why nodes lack kinds, and how to add them; nodes that lack one for the same reason share a line."""
    lacking: dict[tuple[str, str, str], list[str]] = {}
    for node in nodes:
        for kind in node["capabilities"].get("kinds", ()):
            if not kind["available"]:
                reason = (kind["kind"], kind.get("reason", ""), kind.get("how_to_install", ""))
                lacking.setdefault(reason, []).append(node["name"])
    return [
        f"-{kind} on {', '.join(names)}: {reason or 'not available'}{f'; to add it: {how}' if how else ''}"
        for (kind, reason, how), names in lacking.items()
    ]
