"""The scaler: what it measures and decides, why, and how to steer it.

queztl scale set +2 --for 1800
queztl scale policy max_nodes=10 budget_usd_h=2.5 --on
"""

from __future__ import annotations

import argparse
import json
from time import time
from typing import Any

from api.cli.input.arguments import count, seconds
from api.cli.output import capacity
from api.cli.output.console import Output
from api.cli.output.exit_codes import OK, TASK_FAILED
from api.cli.output.formatting import counted, duration

HELP = "capacity: status, set, explain, policy, panic"
#: The API lists at most this many decisions.
MAX_LISTED = 200


def add(parser: argparse.ArgumentParser) -> None:
    """`scale status | set N | explain [ID] | policy [NAME=VALUE…] | panic`"""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("status", help="the last measurements and decisions, and the policy in force")
    setting = actions.add_parser("set", help="hold a number of nodes for some time, whatever the load")
    setting.add_argument("nodes", metavar="N|+N|-N|auto", type=_target, help="nodes; auto: follow the load again")
    setting.add_argument("--provider", default="", metavar="NAME", help="start nodes at this provider only")
    setting.add_argument("--for", dest="for_s", type=seconds, metavar="S", help="for S seconds [3600]")
    explaining = actions.add_parser("explain", help="replay a decision, with its reasons")
    explaining.add_argument("id", metavar="ID", nargs="?", type=count, help="its number in the journal [the last one]")
    explaining.add_argument("--list", action="store_true", help="list the last decisions")
    explaining.add_argument("--limit", type=count, default=20, metavar="N", help="with --list: at most N [20]")
    policy = actions.add_parser("policy", help="show the settings, or change some")
    policy.add_argument(
        "changes", metavar="NAME=VALUE", nargs="*", type=_change, help="VALUE as JSON or text; default: the default"
    )
    switch = policy.add_mutually_exclusive_group()
    switch.add_argument("--on", action="store_true", help="nodes may be started")
    switch.add_argument("--off", action="store_true", help="no node is started")
    policy.add_argument("--versions", action="store_true", help="list the versions of the policy")
    panic = actions.add_parser("panic", help="stop all paid nodes now, and start no paid node")
    panic.add_argument("--undo", action="store_true", help="allow paid nodes again")


async def run(args: argparse.Namespace, out: Output) -> int:
    """Run the action. Raises: BadInput, Conflict, NotFound, BusUnavailable."""
    return await _ACTIONS[args.action](args, out)


async def _status(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node

    document = await call_node(args.url, "GET", "/autoscaler/status")
    if out.as_json:
        out.document(document)
        return OK
    now = time()
    out.facts(capacity.facts(document, now))
    if document["pools"]:
        out.line()
        out.table(capacity.POOL_COLUMNS, capacity.pools(document))
    if document["orders"]:
        out.line()
        out.table(capacity.ORDER_COLUMNS, capacity.orders(document, now))
    for pool in document["decision"]:
        out.line()
        out.line(f"{pool['pool']}: {pool['have']} -> {pool['target']}")
        for sentence in pool["trail"]:
            out.wrapped(f"  {sentence}", indent="    ")
    return OK


async def _set(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node

    if args.nodes is None:
        document = await call_node(args.url, "DELETE", "/scale/manual")
        answer = "the number of nodes follows the load again" if document["was"] else "no number of nodes was set"
    else:
        body = {**args.nodes, **({"for_s": args.for_s} if args.for_s is not None else {})}
        body |= {"provider": args.provider} if args.provider else {}
        document = await call_node(args.url, "POST", "/scale/manual", body)
        answer = f"{counted(document['have'], 'node')} now, {document['target']} for {duration(document['for_s'])}"
    if out.as_json:
        out.document(document)
    out.line(answer)
    return OK


async def _explain(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node
    from mesh.errors import NotFound

    number = args.id
    if number is None:
        limit = min(args.limit, MAX_LISTED) if args.list else 1
        listed = await call_node(args.url, "GET", f"/autoscaler/decisions?limit={limit}")
        if args.list:
            if out.as_json:
                out.document(listed)
            else:
                rows = capacity.decisions(listed, time())
                out.table(capacity.DECISION_COLUMNS, rows, empty="there is no decision yet")
            return OK
        if not listed["decisions"]:
            raise NotFound("no decision has been made in this mesh yet")
        number = listed["decisions"][0]["id"]
    document = await call_node(args.url, "GET", f"/autoscaler/decisions/{number}")
    if out.as_json:
        out.document(document)
    for sentence in document["says"]:
        out.line(sentence)
    return TASK_FAILED if document["replayed"] is False else OK


async def _policy(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node

    if args.changes or args.on or args.off:
        body: dict[str, Any] = {"settings": dict(args.changes)}
        if args.on or args.off:
            body["enabled"] = args.on
        document = await call_node(args.url, "PUT", "/autoscaler/policy", body)
        if not document["enabled"]:
            how = "" if "enabled" in document["by_hand"] else ", or until a node starts with --max-nodes"
            out.note(f"the policy is off: no node is started until `queztl scale policy --on`{how}")
    else:
        document = await call_node(args.url, "GET", "/autoscaler/policy")
    if out.as_json:
        out.document(document)
        return OK
    now = time()
    if args.versions:
        out.table(capacity.VERSION_COLUMNS, capacity.versions(document, now), empty="no policy has been set yet")
        return OK
    out.line(f"policy: {capacity.policy_line(document, now)}")
    out.table(capacity.SETTING_COLUMNS, capacity.settings(document))
    return OK


async def _panic(args: argparse.Namespace, out: Output) -> int:
    from api.cli.input.network import call_node

    document = await call_node(args.url, "POST", "/autoscaler/panic", {"on": not args.undo})
    if out.as_json:
        out.document(document)
    out.line(
        "paid providers may start nodes again"
        if args.undo
        else "all paid nodes are being stopped, and none is started until `queztl scale panic --undo`"
    )
    return OK


_ACTIONS = {"status": _status, "set": _set, "explain": _explain, "policy": _policy, "panic": _panic}


def _target(text: str) -> dict[str, int] | None:
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
