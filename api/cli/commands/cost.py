"""What costs money now, and what was spent today and this month."""

from __future__ import annotations

import argparse
from time import time

from api.cli.output.capacity import budget
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK
from api.cli.output.formatting import ago, moment
from api.cli.output.table import Column

HELP = "what costs money now, today and this month"
COLUMNS = (
    Column("price", right=True), Column("provider"), Column("offer", wraps=True), Column("node", wraps=True),
    Column("since", drop=1),
)  # fmt: skip


def add(parser: argparse.ArgumentParser) -> None:
    """The command has no options of its own."""


async def run(args: argparse.Namespace, out: Output) -> int:
    """Print the costs. Raises: BusUnavailable."""
    from api.cli.input.network import call_node

    document = await call_node(args.url, "GET", "/cost")
    if out.as_json:
        out.document(document)
        return OK
    now = time()
    rows = [
        (
            f"{order['price_usd_h']:.4f} $/h",
            order["provider"],
            order["offer"],
            order["node"] or order["state"],
            ago(order["at"], now),
        )
        for order in document["running"]
    ]
    if rows:
        out.table(COLUMNS, rows)
        out.line()
    out.facts(
        (
            ("now", f"{document['running_usd_h']:.4f} $/h ({document['running_usd_minute']:.5f} $ a minute)"),
            ("today", _usd(document["spent_today_usd"])),
            ("this month", _usd(document["spent_month_usd"])),
            ("forecast", _usd(document["month_forecast_usd"], " this month, if all that runs now goes on to its end")),
            ("budget", budget(document)),
            ("panic", "all paid nodes are stopped (queztl scale panic --undo allows them again)" * document["panic"]),
            ("counted", moment(document["at"], now) if document["at"] else "not yet"),
        )
    )
    return OK


def _usd(amount: float | None, more: str = "") -> str:
    return "not counted yet" if amount is None else f"{amount:.2f} ${more}"
