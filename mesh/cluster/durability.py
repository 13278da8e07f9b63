"""How safe queued work is, as a sentence. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def standstill(there: Sequence[str], away: Sequence[str] = (), failing: Sequence[str] = ()) -> str:
    """Why nothing can be stored, one sentence for people; "" while a majority of the bus servers stores.

    `there`, `away`, `failing`: as for `safety`.
    """
    count, total, gone = len(there), len(there) + len(away) + len(failing), ", ".join(away)
    if failing and count * 2 <= total:
        held = f"only {', '.join(there)} of {total} bus servers" if there else "no bus server"
        lacks = f"{', '.join(failing)} can't store" + (f", {gone} is away" if away else "")
        return f"{held} can store ({lacks}): nothing new is accepted until more can"
    if not count and away:
        return f"no bus server answers ({gone} away): nothing can be stored until it is back; start the node there"
    if away and count * 2 <= total:
        return (
            f"only {', '.join(there)} of {total} bus servers is there ({gone} away): nothing can be stored until more "
            "are back; `queztl bus rescue` shows what can be done if they never will be"
        )
    return ""


def safety(there: Sequence[str], away: Sequence[str] = (), reason: str | None = "", failing: Sequence[str] = ()) -> str:
    """One sentence for people.

    `there`, `away`, `failing`: names of machines whose bus server is reachable, is not, or is and can't store.
    `reason`: what the copies lack, as the leader read it from the servers; None when nothing was read lately.
    """
    count, total = len(there), len(there) + len(away) + len(failing)
    here, gone = ", ".join(there) or "no machine", ", ".join(away)
    if stopped := standstill(there, away, failing):
        return stopped
    if failing:
        more = f"; {gone} is away" if away else ""
        copies = f"{count} of {total} copies are kept up, on {here}"
        return f"{copies}; {', '.join(failing)} can't store{more}: losing another one stops the bus"
    if total <= 1:
        return f"1 copy, on {here}: losing this machine loses queued work"
    if away:
        more = f" ({reason})" if reason else ""
        return f"{count} of {total} copies are there, on {here}; {gone} is away: losing another one stops the bus{more}"
    if count == 2:
        return f"2 copies, on {here}, on the way to another number: losing one stops the bus"
    if reason is None:
        return f"{count} bus servers, on {here}: whether each has a copy of everything could not be read from them"
    if reason:
        return f"{count} bus servers, on {here}, not fully replicated or repaired yet ({reason})"
    return f"{count} copies, on {here}: any one may fail"
