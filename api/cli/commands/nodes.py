"""The nodes of the mesh: state, load, hardware, kinds of work. `*` marks the leader.

`queztl nodes NODE` shows everything about one node, by its id or its name.
"""

from __future__ import annotations

import argparse
from typing import Any

from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import age, counted, duration, size
from api.cli.output.table import Column

HELP = "the nodes: state, load, kinds; with NODE: one in full"
COLUMNS = (
    Column("name", wraps=True), Column("id"), Column("state", is_state=True), Column("slots", right=True),
    Column("queue", drop=6, right=True), Column("cpu", drop=5, right=True), Column("mem", drop=3, right=True),
    Column("gpu", drop=4, right=True, hide_empty=True), Column("kinds", drop=2, right=True),
    Column("region", wraps=True, hide_empty=True), Column("seen", drop=1, right=True),
)  # fmt: skip
KIND_COLUMNS = (
    Column("kind"),
    Column("probe", right=True, hide_empty=True),
    Column("state", wraps=True, is_state=True),
)


def add(parser: argparse.ArgumentParser) -> None:
    """`nodes [NODE]`"""
    parser.add_argument("node", metavar="NODE", nargs="?", help="show this node in full: its id or name")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print all nodes, or one. Raises: BusUnavailable, NotFound, BadInput."""
    from api.cli.input.network import network_document

    document = await network_document(args.url)
    nodes = document["registry"]["nodes"]
    if args.node is not None:
        node = find(nodes, args.node)
        if out.as_json:
            out.document(node)
        else:
            show(node, out)
        return OK
    if out.as_json:
        out.document(document)
        return OK
    out.table(COLUMNS, [row(node) for node in nodes], empty="there is no node in this mesh")
    if not args.quiet:
        for sentence in missing(nodes):
            out.wrapped(sentence)
        for alarm in document.get("alarms", ()):
            out.wrapped(f"alarm: {alarm}")
    return OK


def find(nodes: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The node with that id or, if there is none, that name. Raises: NotFound; BadInput when several have the name."""
    from mesh.errors import BadInput, NotFound

    found = [node for node in nodes if node["id"] == name] or [node for node in nodes if node["name"] == name]
    if not found:
        raise NotFound(f"there is no node {name!r} in this mesh; `queztl nodes` lists them")
    if len(found) > 1:
        ids = ", ".join(node["id"] for node in found)
        raise BadInput(f"{len(found)} nodes are called {name!r}; name one by its id ({ids})")
    return found[0]


def row(node: dict[str, Any]) -> tuple[object, ...]:
    """One node's cells, in the order of COLUMNS."""
    facts, load = node["capabilities"], node["load"]
    memory, used = facts.get("memory_bytes", 0), load.get("memory_used_bytes", 0)
    kinds = facts.get("kinds", ())
    able = sum(1 for kind in kinds if kind["available"])
    return (
        f"{node['name']} *" if node["master"] else node["name"],
        node["id"],
        node["state"],
        f"{_known(node['running'])}/{node['slots']}",
        _known(node["queued"]),
        f"{load['cpu_percent']:.0f} %" if "cpu_percent" in load else "-",
        f"{used / memory:.0%}".replace("%", " %") if memory and used else "-",
        len(facts.get("accelerators", ())) or "",
        "-" if not kinds else str(able) if able == len(kinds) else f"{able}/{len(kinds)}",
        node["region"],
        age(node["last_seen_s"]),
    )


def _known(count: int | None) -> str:
    return "-" if count is None else str(count)


def missing(nodes: list[dict[str, Any]]) -> list[str]:
    """Why nodes lack kinds, and how to add them; nodes that lack a kind for the same reason share a line."""
    lacking: dict[tuple[str, str, str], list[str]] = {}
    for node in nodes:
        for kind in node["capabilities"].get("kinds", ()):
            if not kind["available"]:
                reason = (kind["kind"], kind.get("reason", ""), kind.get("how_to_install", ""))
                lacking.setdefault(reason, []).append(node["name"])
    return [
        f"{kind} is missing on {_some(names)}: {reason or 'not available'}{f'; to add it: {how}' if how else ''}"
        for (kind, reason, how), names in lacking.items()
    ]


def _some(names: list[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def show(node: dict[str, Any], out: Output) -> None:
    """Everything about one node."""
    out.facts(details(node))
    facts = node["capabilities"]
    if facts.get("kinds"):
        speeds = facts.get("speeds", {})
        rows = [
            (
                kind["kind"],
                duration(speeds[kind["kind"]]) if kind["kind"] in speeds else "",
                "ok" if kind["available"] else _why_missing(kind),
            )
            for kind in facts["kinds"]
        ]
        out.line()
        out.table(KIND_COLUMNS, rows)


def _why_missing(kind: dict[str, Any]) -> str:
    how = kind.get("how_to_install", "")
    return (kind.get("reason", "") or "not available") + (f"; to add it: {how}" if how else "")


def details(node: dict[str, Any]) -> list[tuple[str, object]]:
    """One node as names and values; a value that is not known is empty."""
    facts, load = node["capabilities"], node["load"]
    memory, used = facts.get("memory_bytes", 0), load.get("memory_used_bytes", 0)
    roles = [role for role, has_it in (("leader", node["master"]), ("bus server", node["hosts_bus"])) if has_it]
    rates = ", ".join(f"{kind} {duration(mean_s)} ({counted(tasks, 'task')})" for kind, mean_s, tasks in _rates(load))
    system = " ".join(filter(None, (facts.get("os", ""), facts.get("arch", ""))))
    return [
        ("name", node["name"]),
        ("id", node["id"]),
        ("state", node["state"]),
        ("twin", node.get("twin", "")),
        ("roles", ", ".join(roles)),
        ("version", node["version"]),
        ("API", node["api"]),
        ("host", node["host"]),
        ("region", node["region"]),
        ("labels", ", ".join(f"{name}={value}" for name, value in node["labels"].items())),
        ("slots", f"{_known(node['running'])} of {node['slots']} in use"),
        ("queue", f"{counted(node['queued'], 'task')} fetched but not started" if node["queued"] is not None else ""),
        ("tasks", f"{load['done']} done, {load['failed']} failed" if "done" in load and "failed" in load else ""),
        ("run times", rates),
        ("cpu", f"{load['cpu_percent']:.0f} %" if "cpu_percent" in load else ""),
        ("memory", f"{size(used)} of {size(memory)} in use" if memory and used else size(memory) if memory else ""),
        ("disk", f"{size(facts['disk_free_bytes'])} free" if facts.get("disk_free_bytes") else ""),
        ("system", system),
        ("processor", facts.get("cpu_model", "")),
        ("cores", _cores(facts)),
        *(("accelerator", _accelerator(device)) for device in facts.get("accelerators", ())),
        ("libraries", ", ".join(f"{name} {version}" for name, version in facts.get("libraries", {}).items())),
        ("seen", f"{duration(node['last_seen_s'])} ago" if node["last_seen_s"] >= 0 else "never"),
    ]


def _rates(load: dict[str, Any]) -> list[tuple[str, float, int]]:
    rates = load.get("rates", {})
    return [(kind, float(rate["mean_s"]), int(rate["tasks"])) for kind, rate in rates.items()]


def _cores(facts: dict[str, Any]) -> str:
    physical = facts.get("cores_physical", 0)
    return f"{facts.get('cores', '')}" + (f" ({physical} physical)" if physical else "")


def _accelerator(device: dict[str, Any]) -> str:
    memory = f", {size(device['memory_bytes'])}" if device.get("memory_bytes") else ""
    driver = f", driver {device['driver']}" if device.get("driver") else ""
    return f"{device['type']} {device['name']}{memory}{driver}"
