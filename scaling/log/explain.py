"""Explains a journaled decision in words, and replays it: `python -m scaling explain`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mesh.errors import BadInput, NotFound
from scaling.domain.units import counted
from scaling.log.decision_record import replay
from scaling.log.reports import summary


def explain(written: Mapping[str, Any]) -> dict[str, Any]:
    """The decision with `says` (sentences) and `replayed` (whether it came out the same; None: it can't be). Pure."""
    same: bool | None = None
    try:
        decision, same = replay(written)
        verdict = "Replayed from its inputs, the decision is the same."
        if not same:
            verdict = f"Replayed from its inputs, the decision differs: {summary(decision)}."
    except BadInput as fault:
        verdict = f"{fault.message[:1].upper()}{fault.message[1:]}."
    return {**written, "replayed": same, "says": [*_lines(written), verdict]}


def _lines(written: Mapping[str, Any]) -> list[str]:
    at = datetime.fromtimestamp(written["at"], UTC)
    lines = [
        f"Decision {written['id']} of {at:%Y-%m-%d %H:%M:%S} UTC by {written['node'] or 'a leader'} (fence "
        f"{written['fence']}), policy {written['policy']}:"
    ]
    for pool in written["pools"]:
        lines.append(f"{pool['pool']}: {pool['have']} -> {counted(pool['target'], 'node')}")
        lines += [f"  {sentence}" for sentence in pool["trail"]]
        lines += [
            f"  start {each['count']} of {each['offer']}, {each['price_usd_h']:g} $/h" for each in pool["launches"]
        ]
        lines += [f"  drain {', '.join(pool['drains'])}"] if pool["drains"] else []
    return lines + [f"note: {note}" for note in written["notes"]]


async def from_journal(url: str | None, number: int | None) -> dict[str, Any]:
    """A decision of a running mesh; without a number the last one. Raises: BadInput, BusUnavailable, NotFound."""
    from mesh.client import Mesh
    from scaling.state.store import Store

    async with Mesh(url) as mesh:
        store = Store(mesh.bus)
        if number is not None:
            return await store.decision(number)
        last = await store.decisions(1)
        if not last:
            raise NotFound("no decision has been made in this mesh yet")
        return last[0]


def from_file(path: str) -> dict[str, Any]:
    """A decision as `queztl --json scale explain` printed it; - reads stdin. Raises: BadInput."""
    try:
        found = json.loads(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"))
        if {"id", "at", "node", "fence", "policy", "pools", "notes", "from"} <= found.keys():
            return dict(found)
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"{path} can't be read as a decision: {error}") from None
    raise BadInput(f"{path} is not a decision as `queztl --json scale explain` prints it")
