"""The scaler's documents as people read them. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.cli.output.formatting import duration, moment

POOL_COLUMNS = ("pool", "ready", "starting", "draining", "running", "queued", "load", "use", "expected")
ORDER_COLUMNS = ("order", "state", "provider", "offer", "node", "since", "why")
DECISION_COLUMNS = ("id", "when", "pool", "nodes", "starts", "drains", "because")
VERSION_COLUMNS = ("version", "when", "by", "on", "settings")


def facts(document: dict[str, Any], now: float) -> list[tuple[str, object]]:
    """What is in force."""
    manual = document["manual"]
    return [
        ("state", document["state"] + (f": {document['reason']}" if document["reason"] else "")),
        ("policy", policy_line(document["policy"], now)),
        ("by hand", f"{manual['target']} nodes for another {duration(manual['for_s'])}" if manual else ""),
        ("panic", "everything paid is stopped" if document["panic"] else ""),
        ("looked", moment(document["at"] or 0, now) if document["at"] else ""),
        ("budget", budget(document["budget"]) if document["budget"] else ""),
        *(("note", note) for note in document["notes"]),
    ]


def policy_line(policy: dict[str, Any], now: float) -> str:
    """Which policy is in force, in a line."""
    if not policy["version"]:
        return "none"
    by = {"flags": f"by the flags of {policy['node']}", "hand": f"by hand on {policy['node']}"}.get(policy["by"], "")
    return f"{policy['version']}, {'on' if policy['enabled'] else 'off'}, {by}, {moment(policy['at'], now)}"


def pools(document: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """A row a pool."""
    expected = {one["pool"]: _expected(one) for one in document["forecast"]}
    for one in document["pools"]:
        yield (
            one["pool"], one["ready"], one["starting"], one["draining"], one["running"], one["queued"],
            f"{one['load']:.2f}", f"{one['cpu']:.0%}", expected.get(one["pool"], ""),
        )  # fmt: skip


def _expected(one: dict[str, Any]) -> str:
    if not one["in_force"] or one.get("median") is None:
        return str(one["why"])
    used = "" if one["trusted"] else f" (not used: {one['why']})"
    return f"{one['median']:.2f}, under {one['at_start']:.2f} by {one['model']}{used}"


def orders(document: dict[str, Any], now: float) -> Iterator[tuple[object, ...]]:
    """A row an order."""
    for one in document["orders"]:
        yield (
            one["token"], one["state"], one["provider"], one["offer"], one["node"] or one["instance"],
            moment(one["at"], now), one["why"],
        )  # fmt: skip


def decisions(document: dict[str, Any], now: float) -> Iterator[tuple[object, ...]]:
    """A row a decision and pool."""
    for one in document["decisions"]:
        for pool in one["pools"]:
            starts = sum(launch["count"] for launch in pool["launches"])
            best = max(pool["proposals"], key=lambda each: each["nodes"], default={"policy": "", "reason": ""})
            yield (
                one["id"], moment(one["at"], now), pool["pool"], f"{pool['have']} -> {pool['target']}",
                starts or "", len(pool["drains"]) or "", f"{best['policy']}: {best['reason']}",
            )  # fmt: skip


def settings(document: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    """A row a setting, those that were set first."""
    given = document["settings"]
    for name, value in sorted(document["effective"].items(), key=lambda one: one[0] not in given):
        yield name, "none" if value is None else value, "*" if name in given else ""


def versions(document: dict[str, Any], now: float) -> Iterator[tuple[object, ...]]:
    """A row a version."""
    for one in document["versions"]:
        given = ", ".join(f"{name}={value}" for name, value in one["settings"].items())
        yield one["version"], moment(one["at"], now), one["by"], "on" if one["enabled"] else "off", given


def budget(document: dict[str, Any]) -> str:
    """The limits and what they leave, in words. Pure."""
    limits = [
        f"{document[name]:g} $ {words}"
        for name, words in (("budget_usd_h", "an hour"), ("budget_usd_day", "a day"))
        if document[name] is not None
    ]
    if not limits:
        return "none set"
    room = document["room_usd_h"]
    return " and ".join(limits) + (f"; {max(0.0, room):.4f} $/h may still be started" if room is not None else "")
