"""The kinds of work there are, and which nodes can do them."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from typing import Any

from aiohttp import web

from api.http.errors import json_reply
from api.http.keys import SERVICES
from mesh.kinds.table import KINDS, schema
from mesh.views import NodeView

#: Nodes in these states are no longer there.
_ABSENT = ("gone", "left")


async def kinds(request: web.Request) -> web.Response:
    """Every kind with its summary, payload schema, example and resources, and the nodes that know it."""
    nodes = (await request.app[SERVICES].network()).nodes
    return json_reply({"workloads": [fixed | {"nodes": _nodes(fixed["kind"], nodes)} for fixed in _fixed()]})


@lru_cache(maxsize=1)
def _fixed() -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "kind": spec.name,
            "summary": spec.summary,
            "schema": schema(spec.name),
            "example": spec.example,
            "resources": asdict(spec.resources),
            "timeout_s": spec.timeout_s,
        }
        for spec in KINDS.values()
    )


def _nodes(kind: str, nodes: tuple[NodeView, ...]) -> list[dict[str, Any]]:
    found = []
    for node in nodes:
        infos = node.capabilities.get("kinds") or ()
        info = next((info for info in infos if info["kind"] == kind), None)
        if info is not None and node.state not in _ABSENT:
            found.append(
                {
                    "id": node.id,
                    "name": node.name,
                    "available": info["available"],
                    "reason": info.get("reason", ""),
                    "how_to_install": info.get("how_to_install", ""),
                }
            )
    return found
