"""How many clients the bus servers have, beside how many each takes. Pure.

Each server has a limit of its own: that of its settings, or what the files that it may open allow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mesh import limits
from mesh.limits import Limits
from mesh.subjects import host_of

VARZ = "$SYS.REQ.SERVER.PING.VARZ"
NAME = "bus_connections"


def connections_of(answers: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Server -> (its connections, how many it takes at most), from answers to VARZ; others are absent."""
    found: dict[str, tuple[int, int]] = {}
    for answer in answers:
        try:
            data = answer["data"]
            found[str(answer["server"]["name"])] = int(data["connections"]), int(data["max_connections"])
        except (KeyError, ValueError, TypeError):
            continue
    return found


def alarms_of(connections: Mapping[str, tuple[int, int]], names: Mapping[str, str]) -> dict[str, str]:
    """Stable name -> a sentence, for each server near its limit. `names`: node id -> its name for people."""
    found: dict[str, str] = {}
    for server, (number, limit) in sorted(connections.items()):
        if limit > 0:
            for sentence in limits.alarms({NAME: number}, replace(Limits(), **{NAME: limit})).values():
                host = host_of(server)
                found[f"{NAME}-{host}"] = f"On {names.get(host, host)}: {sentence}"
    return found
