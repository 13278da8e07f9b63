"""Every node is a NATS micro service, so that `nats micro ls` (and `$SRV.PING|INFO|STATS`) lists the mesh."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mesh.subjects import SERVICE_NAME, ingress

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message, Subscription
    from node.daemon import Node


def document(verb: str, node: Node, started: str) -> dict[str, Any]:
    """The answer to one verb, in the format of NATS ADR-32."""
    record = node.record
    base = {
        "name": SERVICE_NAME,
        "id": record.id,
        "version": _semver(record.version),
        "metadata": {"node": record.name, "api": record.api, "region": record.region},
    }
    if verb == "PING":
        return base | {"type": "io.nats.micro.v1.ping_response"}
    endpoints = [
        {"name": kind.kind, "subject": ingress(kind.kind), "queue_group": "mesh", "metadata": {}}
        for kind in record.capabilities.kinds
        if kind.available
    ]
    if verb == "INFO":
        return base | {
            "type": "io.nats.micro.v1.info_response",
            "description": f"Queztl node {record.name} of mesh {node.joined.mesh.name}",
            "endpoints": endpoints,
        }
    rates = node.executor.rates
    stats = []
    for endpoint in endpoints:
        rate = rates.get(endpoint["name"])
        mean_ns, count = (int(rate.mean_s * 1e9), rate.samples) if rate else (0, 0)
        stats.append(
            endpoint
            | {
                "num_requests": count,
                "num_errors": 0,
                "last_error": "",
                "processing_time": mean_ns * count,
                "average_processing_time": mean_ns,
            }
        )
    return base | {"type": "io.nats.micro.v1.stats_response", "started": started, "endpoints": stats}


def _semver(text: str) -> str:
    return text if text and text[0].isdigit() and " " not in text else "0.0.0"


async def answer_service_requests(bus: Bus, node: Node) -> list[Subscription]:
    """Answer on `$SRV.<verb>`, `$SRV.<verb>.queztl` and `$SRV.<verb>.queztl.<node>`."""
    started = datetime.now(UTC).isoformat().replace("+00:00", "Z")

    def answer(message: Message) -> None:
        if message.reply:
            verb = message.subject.split(".")[1]
            bus.send(message.reply, json.dumps(document(verb, node, started)).encode())

    tails = ("", f".{SERVICE_NAME}", f".{SERVICE_NAME}.{node.record.id}")
    addresses = [f"$SRV.{verb}{tail}" for verb in ("PING", "INFO", "STATS") for tail in tails]
    subscriptions = [await bus.subscribe(address, answer, wait=False) for address in addresses]
    await bus.flush()
    return subscriptions
