"""Makes every node a NATS micro service, so that `nats micro ls` (and `$SRV.PING|INFO|STATS`) lists the mesh."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from mesh.bus.client import Message, Subscription
from mesh.messages import NodeRecord
from mesh.subjects import SERVICE_NAME, ingress
from node.context import NodeContext
from node.executor.dispatch import Rate


def document(verb: str, record: NodeRecord, mesh_name: str, rates: Mapping[str, Rate], started: str) -> dict[str, Any]:
    """The answer to `verb` (PING, INFO or STATS) in the format of NATS ADR-32.

    `rates`: kind -> its measured run time on this node; `started`: when the node started, RFC 3339.
    """
    base: dict[str, Any] = {
        "name": SERVICE_NAME,
        "id": record.id,
        "version": _semver(record.version),
        "metadata": {"node": record.name, "api": record.api, "region": record.region},
    }
    if verb == "PING":
        return base | {"type": "io.nats.micro.v1.ping_response"}
    endpoints: list[dict[str, Any]] = [
        {"name": kind.kind, "subject": ingress(kind.kind), "queue_group": "mesh", "metadata": {}}
        for kind in record.capabilities.kinds
        if kind.available
    ]
    if verb == "INFO":
        return base | {
            "type": "io.nats.micro.v1.info_response",
            "description": f"Queztl node {record.name} of mesh {mesh_name}",
            "endpoints": endpoints,
        }
    stats = [endpoint | _statistics(rates.get(endpoint["name"])) for endpoint in endpoints]
    return base | {"type": "io.nats.micro.v1.stats_response", "started": started, "endpoints": stats}


def _statistics(rate: Rate | None) -> dict[str, Any]:
    mean_ns, count = (int(rate.mean_s * 1e9), rate.samples) if rate else (0, 0)
    return {
        "num_requests": count,
        "num_errors": 0,
        "last_error": "",
        "processing_time": mean_ns * count,
        "average_processing_time": mean_ns,
    }


def _semver(text: str) -> str:
    return text if text and text[0].isdigit() and " " not in text else "0.0.0"


async def answer_service_requests(context: NodeContext, rates: Mapping[str, Rate]) -> list[Subscription]:
    """Answer on `$SRV.<verb>`, `$SRV.<verb>.queztl` and `$SRV.<verb>.queztl.<node>`. Raises: BusUnavailable."""
    bus = context.bus
    started = datetime.now(UTC).isoformat().replace("+00:00", "Z")

    def answer(message: Message) -> None:
        if message.reply:
            verb = message.subject.split(".")[1]
            reply = document(verb, context.record, context.mesh.name, rates, started)
            bus.send(message.reply, json.dumps(reply).encode())

    tails = ("", f".{SERVICE_NAME}", f".{SERVICE_NAME}.{context.node_id}")
    addresses = [f"$SRV.{verb}{tail}" for verb in ("PING", "INFO", "STATS") for tail in tails]
    subscriptions = [await bus.subscribe(address, answer, wait=False) for address in addresses]
    await bus.flush()
    return subscriptions
