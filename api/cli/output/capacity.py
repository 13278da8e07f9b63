"""The scaler's documents as people read them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.cli.output.formatting import ago, counted, duration, moment, plain
from api.cli.output.table import Column

POOL_COLUMNS = (
    Column("pool", wraps=True), Column("ready", right=True), Column("starting", drop=2, right=True),
    Column("draining", drop=1, right=True), Column("running", right=True), Column("queued", right=True),
    Column("load", right=True), Column("use", drop=3, right=True), Column("expected", wraps=True, hide_empty=True),
)  # fmt: skip
ORDER_COLUMNS = (
    Column("order"), Column("state"), Column("provider", drop=2), Column("offer", drop=3, wraps=True),
    Column("node", wraps=True), Column("since", drop=1), Column("why", wraps=True),
)  # fmt: skip
DECISION_COLUMNS = (
    Column("id", right=True), Column("when", drop=1), Column("pool", wraps=True), Column("nodes"),
    Column("starts", right=True, hide_empty=True), Column("drains", right=True, hide_empty=True),
    Column("because", wraps=True),
)  # fmt: skip
SETTING_COLUMNS = (Column("setting"), Column("value", wraps=True), Column("set"))
VERSION_COLUMNS = (
    Column("version", right=True), Column("when", drop=1), Column("by"), Column("on"), Column("settings", wraps=True),
)  # fmt: skip


def facts(document: dict[str, Any], now: float) -> list[tuple[str, object]]:
    """What is in force, as names and values."""
    manual = document["manual"]
    return [
        ("state", document["state"] + (f": {document['reason']}" if document["reason"] else "")),
        ("policy", policy_line(document["policy"], now)),
        ("manual", f"{counted(manual['target'], 'node')} for another {duration(manual['for_s'])}" if manual else ""),
        ("panic", "all paid nodes are stopped" if document["panic"] else ""),
        ("checked", moment(document["at"], now) if document["at"] else ""),
        ("budget", budget(document["budget"]) if document["budget"] else ""),
        *(("note", note) for note in document["notes"]),
    ]


def policy_line(policy: dict[str, Any], now: float) -> str:
    """The policy in force, on one line."""
    if not policy["version"]:
        return "none"
    by = {"flags": f"by the flags of {policy['node']}", "hand": f"by hand on {policy['node']}"}.get(policy["by"], "")
    parts = (str(policy["version"]), "on" if policy["enabled"] else "off", by, moment(policy["at"], now))
    return ", ".join(filter(None, parts))


def pools(document: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """A row a pool."""
    expected = {forecast["pool"]: _expected(forecast) for forecast in document["forecast"]}
    for pool in document["pools"]:
        yield (
            pool["pool"], pool["ready"], pool["starting"], pool["draining"], pool["running"], pool["queued"],
            f"{pool['load']:.2f}", f"{pool['cpu']:.0%}", expected.get(pool["pool"], ""),
        )  # fmt: skip


def _expected(forecast: dict[str, Any]) -> str:
    if not forecast["in_force"] or forecast.get("median") is None:
        return str(forecast["why"])
    not_used = "" if forecast["trusted"] else f" (not used: {forecast['why']})"
    return f"{forecast['median']:.2f}, under {forecast['at_start']:.2f} by {forecast['model']}{not_used}"


def orders(document: dict[str, Any], now: float) -> Iterator[tuple[object, ...]]:
    """A row an order."""
    for order in document["orders"]:
        yield (
            order["token"], order["state"], order["provider"], order["offer"], order["node"] or order["instance"],
            ago(order["at"], now), order["why"],
        )  # fmt: skip


def decisions(document: dict[str, Any], now: float) -> Iterator[tuple[object, ...]]:
    """A row a decision and pool."""
    for decision in document["decisions"]:
        for pool in decision["pools"]:
            starts = sum(launch["count"] for launch in pool["launches"])
            nothing = {"policy": "", "nodes": 0, "reason": ""}
            highest = max(pool["proposals"], key=lambda proposal: proposal["nodes"], default=nothing)
            yield (
                decision["id"], ago(decision["at"], now), pool["pool"], f"{pool['have']} -> {pool['target']}",
                starts or "", len(pool["drains"]) or "", f"{highest['policy']}: {highest['reason']}",
            )  # fmt: skip


def settings(document: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """A row a setting, those that differ from their defaults first."""
    changed = document["settings"]
    for name, value in sorted(document["effective"].items(), key=lambda item: item[0] not in changed):
        yield name, plain(value), "*" if name in changed else ""


def versions(document: dict[str, Any], now: float) -> Iterator[tuple[object, ...]]:
    """A row a version of the policy."""
    for version in document["versions"]:
        changes = ", ".join(f"{name}={plain(value)}" for name, value in version["settings"].items())
        yield version["version"], ago(version["at"], now), version["by"], "on" if version["enabled"] else "off", changes


def budget(document: dict[str, Any]) -> str:
    """The budget limits and what they leave, in words."""
    limits = [
        f"{document[name]:g} $ {period}"
        for name, period in (("budget_usd_h", "an hour"), ("budget_usd_day", "a day"))
        if document[name] is not None
    ]
    if not limits:
        return "none set"
    room = document["room_usd_h"]
    return " and ".join(limits) + (f"; {max(0.0, room):.4f} $/h may still be started" if room is not None else "")
