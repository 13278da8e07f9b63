"""What costs money this minute, this day and this month."""

from __future__ import annotations

import argparse
from time import time
from typing import Any

from api.cli.console import Output
from api.cli.exit_codes import OK
from api.cli.formatting import moment

HELP = "what costs money now, today and this month"


def add(parser: argparse.ArgumentParser) -> None:
    """No flags of its own."""


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print the bill. Raises: BusUnavailable."""
    from api.cli.api_call import call

    document = await call(args.url, "GET", "/cost")
    if out.as_json:
        out.document(document)
        return OK
    now = time()
    rows = [
        (f"{one['price_usd_h']:.4f} $/h", one["provider"], one["offer"], one["node"] or one["state"],
         moment(one["at"], now))
        for one in document["running"]
    ]  # fmt: skip
    if rows:
        out.table(("price", "provider", "offer", "node", "since"), rows)
        out.line()
    out.facts(
        (
            ("now", f"{document['running_usd_h']:.4f} $/h ({document['running_usd_minute']:.5f} $ a minute)"),
            ("today", f"{document['spent_today_usd']:.2f} $"),
            ("this month", f"{document['spent_month_usd']:.2f} $"),
            ("forecast", f"{document['month_forecast_usd']:.2f} $ this month, if what runs now runs to its end"),
            ("budget", budget(document)),
            ("panic", "everything paid is stopped (queztl scale panic --undo allows it again)" * document["panic"]),
            ("counted", moment(document["at"] or 0, now)),
        )
    )
    return OK


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
