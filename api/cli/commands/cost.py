"""What costs money this minute, this day and this month."""

from __future__ import annotations

import argparse
from time import time

from api.cli.output.capacity import budget
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import moment

HELP = "what costs money now, today and this month"


def add(parser: argparse.ArgumentParser) -> None:
    """No flags of its own."""


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print the bill. Raises: BusUnavailable."""
    from api.cli.input.network import call_node

    document = await call_node(args.url, "GET", "/cost")
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
