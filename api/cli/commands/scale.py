"""The scaler: what it sees and decides, why, and what people tell it.

queztl scale set +2 --for 1800
queztl scale policy max_nodes=10 budget_usd_h=2.5 --on
"""

from __future__ import annotations

import argparse
import json
from time import time
from typing import Any

from api.cli.input.arguments import count, seconds
from api.cli.output import capacity as words
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK, TASK_FAILED

HELP = "capacity: status, set, explain, policy, panic"


def add(parser: argparse.ArgumentParser) -> None:
    """`scale status | set N | explain [ID] | policy [NAME=VALUE…] | panic`"""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("status", help="what was last seen and decided, and what is in force")
    setting = actions.add_parser("set", help="so many nodes for some time, whatever is seen")
    setting.add_argument("nodes", metavar="N|+N|-N|auto", type=_wish, help="nodes; auto: back to what is seen")
    setting.add_argument("--provider", default="", metavar="NAME", help="only this one starts them")
    setting.add_argument("--for", dest="for_s", type=seconds, metavar="S", help="how long, seconds [3600]")
    explaining = actions.add_parser("explain", help="a decision with its reasons, made again")
    explaining.add_argument("id", metavar="ID", nargs="?", type=count, help="its number in the journal [the last one]")
    explaining.add_argument("--list", action="store_true", help="list the last decisions")
    explaining.add_argument("--limit", type=count, default=20, metavar="N", help="with --list: so many [20]")
    policy = actions.add_parser("policy", help="show the settings, or change some")
    policy.add_argument(
        "changes", metavar="NAME=VALUE", nargs="*", type=_change, help="VALUE as JSON or text; default: as it was made"
    )
    switch = policy.add_mutually_exclusive_group()
    switch.add_argument("--on", action="store_true", help="nodes may be started")
    switch.add_argument("--off", action="store_true", help="no node is started")
    policy.add_argument("--versions", action="store_true", help="list the versions that are kept")
    panic = actions.add_parser("panic", help="stop everything paid now, and start nothing paid")
    panic.add_argument("--undo", action="store_true", help="allow it again")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Do it. Raises: BadInput, Conflict, NotFound, BusUnavailable."""
    return await _ACTIONS[args.action](args, out)


async def _status(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node

    document = await call_node(args.url, "GET", "/autoscaler/status")
    if out.as_json:
        out.document(document)
        return OK
    now = time()
    out.facts(words.facts(document, now))
    if document["pools"]:
        out.line()
        out.table(words.POOL_COLUMNS, words.pools(document))
    if document["orders"]:
        out.line()
        out.table(words.ORDER_COLUMNS, words.orders(document, now))
    for one in document["decision"]:
        out.line()
        out.line(f"{one['pool']}: {one['have']} -> {one['target']}")
        for sentence in one["trail"]:
            out.line(f"  {sentence}")
    return OK


async def _set(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node

    if args.nodes is None:
        document = await call_node(args.url, "DELETE", "/scale/manual")
        said = "back to what is seen" if document["was"] else "nothing was set by hand"
    else:
        body = {**args.nodes, **({"for_s": args.for_s} if args.for_s is not None else {})}
        body |= {"provider": args.provider} if args.provider else {}
        document = await call_node(args.url, "POST", "/scale/manual", body)
        said = f"{document['have']} nodes now, {document['target']} wanted for {document['for_s']:.0f} s"
    if out.as_json:
        out.document(document)
    out.line(said)
    return OK


async def _explain(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node
    from mesh.errors import NotFound

    number = args.id
    if number is None:
        limit = min(args.limit, 200) if args.list else 1
        listed = await call_node(args.url, "GET", f"/autoscaler/decisions?limit={limit}")
        if args.list:
            if out.as_json:
                out.document(listed)
            else:
                out.table(words.DECISION_COLUMNS, words.decisions(listed, time()), empty="no decision yet")
            return OK
        if not listed["decisions"]:
            raise NotFound("no decision has been made in this mesh yet")
        number = listed["decisions"][0]["id"]
    document = await call_node(args.url, "GET", f"/autoscaler/decisions/{number}")
    if out.as_json:
        out.document(document)
    for line in document["says"]:
        out.line(line)
    return TASK_FAILED if document["replayed"] is False else OK


async def _policy(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node

    if args.changes or args.on or args.off:
        body: dict[str, Any] = {"settings": dict(args.changes)}
        if args.on or args.off:
            body["enabled"] = args.on
        document = await call_node(args.url, "PUT", "/autoscaler/policy", body)
        if not document["enabled"]:
            out.note("the policy is off: no node is started until `queztl scale policy --on`")
    else:
        document = await call_node(args.url, "GET", "/autoscaler/policy")
    if out.as_json:
        out.document(document)
        return OK
    now = time()
    if args.versions:
        out.table(words.VERSION_COLUMNS, words.versions(document, now), empty="no policy was ever set")
        return OK
    out.line(words.policy_line(document, now))
    out.table(("setting", "value", "set"), words.settings(document))
    return OK


async def _panic(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node

    document = await call_node(args.url, "POST", "/autoscaler/panic", {"on": not args.undo})
    if out.as_json:
        out.document(document)
    out.line(
        "paid providers may start nodes again"
        if args.undo
        else "everything paid is being stopped, and nothing paid is started until `queztl scale panic --undo`"
    )
    return OK


_ACTIONS = {"status": _status, "set": _set, "explain": _explain, "policy": _policy, "panic": _panic}


def _wish(text: str) -> dict[str, int] | None:
    if text == "auto":
        return None
    sign, digits = text[:1] if text[:1] in "+-" else "", text.lstrip("+-")
    if not digits.isascii() or not digits.isdigit() or text != sign + digits:
        raise argparse.ArgumentTypeError(f"{text!r} is none of N, +N, -N and auto")
    return {"delta": int(text)} if sign else {"target": int(digits)}


def _change(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    if value == "default":
        return name, None
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
