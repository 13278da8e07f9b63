"""Whether the bus servers agree on the time. Pure.

Each stamps and judges messages by its own clock while it leads their stream, so expiries, delays and the lifetimes of
results go wrong where the next leader's clock shows another time. Their answers to one question are compared, not their
clocks with that of this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median_low
from typing import Any

from mesh.bus.replies import unix_seconds
from mesh.subjects import host_of

#: Clocks that differ by more raise an alarm, seconds. The answers themselves may be a second apart.
ALARM_S = 10.0


def times_of(answers: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Server -> its clock when it answered, Unix seconds; servers that don't say are absent."""
    found: dict[str, float] = {}
    for answer in answers:
        server = answer.get("server") or {}
        try:
            found[str(server["name"])] = unix_seconds(str(server["time"]))
        except (KeyError, ValueError, TypeError):
            continue
    return found


def alarms_of(times: Mapping[str, float], names: Mapping[str, str]) -> dict[str, str]:
    """The alarm about clocks that differ: stable name -> a sentence. `names`: node id -> its name for people."""
    if len(times) < 2:
        return {}
    middle = median_low(times.values())
    off = {server: at - middle for server, at in sorted(times.items()) if abs(at - middle) > ALARM_S}
    if not off:
        return {}
    which = ", ".join(
        f"{names.get(host_of(server), host_of(server))} is {abs(by_s):.0f} s {'ahead' if by_s > 0 else 'behind'}"
        for server, by_s in off.items()
    )
    consequence = "Expiries, delays and the lifetimes of results go wrong when another server leads"
    return {"clocks": f"The clocks of the bus servers differ: {which}. {consequence}; set the time there, as by NTP."}
