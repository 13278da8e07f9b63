"""A journaled decision in words, made again from what it was made from: `python -m scaling explain`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mesh.errors import BadInput, NotFound
from scaling.log.decision_record import replay
from scaling.log.reports import in_words


def explained(written: Mapping[str, Any]) -> dict[str, Any]:
    """The decision with `replayed` (whether it came out the same; None: it can't be made again) and `says`. Pure."""
    try:
        made, same = replay(written)
        verdict = "Made again from what it was made from, it is the same."
        if not same:
            verdict = f"Made again, it comes out differently: {in_words(made)}."
    except BadInput as fault:
        same, verdict = None, f"{fault.message[:1].upper()}{fault.message[1:]}."
    return {**written, "replayed": same, "says": [*_lines(written), verdict]}


def _lines(written: Mapping[str, Any]) -> list[str]:
    at = datetime.fromtimestamp(written["at"], UTC)
    found = [
        f"Decision {written['id']} of {at:%Y-%m-%d %H:%M:%S} UTC by {written['node'] or 'a master'} (fence "
        f"{written['fence']}), policy {written['policy']}:"
    ]
    for pool in written["pools"]:
        found.append(f"{pool['pool']}: {pool['have']} -> {pool['target']} nodes")
        found += [f"  {sentence}" for sentence in pool["trail"]]
        found += [f"  start {one['count']} of {one['offer']}, {one['price_usd_h']:g} $/h" for one in pool["launches"]]
        found += [f"  drain {', '.join(pool['drains'])}"] if pool["drains"] else []
    return found + [f"note: {note}" for note in written["notes"]]


async def from_journal(url: str | None, number: int | None) -> dict[str, Any]:
    """A decision of a running mesh, the last one without a number. Raises: BadInput, BusUnavailable, NotFound."""
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
    raise BadInput(f"{path} is no decision as `queztl --json scale explain` prints it")
