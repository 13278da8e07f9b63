"""How safe queued work is, as a sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def standstill(there: Sequence[str], away: Sequence[str] = ()) -> str:
    """Why nothing can be stored, one sentence for people; "" while a majority of the bus servers is there.

    `there`, `away`: as for `safety`.
    """
    count, total, gone = len(there), len(there) + len(away), ", ".join(away)
    if not count and away:
        return f"no bus server answers ({gone} away): nothing can be stored until it is back; start the node there"
    if away and count * 2 <= total:
        return (
            f"only {', '.join(there)} of {total} bus servers is there ({gone} away): nothing can be stored until more "
            "are back; `queztl bus rescue` shows what can be done if they never will be"
        )
    return ""


def safety(there: Sequence[str], away: Sequence[str] = (), reason: str = "") -> str:
    """One sentence for people.

    `there`, `away`: names of machines whose bus server is, or is not, reachable; `reason`: what the leader waits for.
    """
    count, total = len(there), len(there) + len(away)
    here, gone = ", ".join(there) or "no machine", ", ".join(away)
    if stopped := standstill(there, away):
        return stopped
    if total <= 1:
        return f"1 copy, on {here}: losing this machine loses queued work"
    if away:
        more = f" ({reason})" if reason else ""
        return f"{count} of {total} copies are there, on {here}; {gone} is away: losing another one stops the bus{more}"
    if count == 2:
        return f"2 copies, on {here}, on the way to another number: losing one stops the bus"
    if reason:
        return f"{count} bus servers, on {here}, not fully replicated or repaired yet ({reason})"
    return f"{count} copies, on {here}: any one may fail"
