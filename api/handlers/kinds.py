"""The kinds of work, and the nodes that can run them."""

from __future__ import annotations

from functools import lru_cache

from aiohttp import web
from msgspec.structs import replace

from api.documents.network import KindDoc, KindNode, KindsDoc
from api.http.errors import json_reply
from api.http.keys import SERVICES
from mesh.kinds.table import KINDS, schema
from mesh.views import NodeView

#: Nodes in these states have left the mesh.
_ABSENT = ("gone", "left")


async def kinds(request: web.Request) -> web.Response:
    """Every kind with its summary, payload schema, example and resources, and the nodes that know it."""
    nodes = (await request.app[SERVICES].network()).registry.nodes
    return json_reply(KindsDoc([replace(kind, nodes=_nodes(kind.kind, nodes)) for kind in _kinds()]))


@lru_cache(maxsize=1)
def _kinds() -> tuple[KindDoc, ...]:
    """The kinds, without their nodes."""
    return tuple(
        KindDoc(
            kind=spec.name,
            summary=spec.summary,
            payload_schema=schema(spec.name),
            example=spec.example,
            resources=spec.resources,
            timeout_s=spec.timeout_s,
            nodes=[],
        )
        for spec in KINDS.values()
    )


def _nodes(kind: str, nodes: tuple[NodeView, ...]) -> list[KindNode]:
    found: list[KindNode] = []
    for node in nodes:
        infos = node.capabilities.get("kinds") or ()
        info = next((info for info in infos if info["kind"] == kind), None)
        if info is not None and node.state not in _ABSENT:
            found.append(
                KindNode(
                    id=node.id,
                    name=node.name,
                    available=info["available"],
                    reason=info.get("reason", ""),
                    how_to_install=info.get("how_to_install", ""),
                )
            )
    return found
