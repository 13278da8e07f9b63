"""The mesh as a whole: the document of network/status, from a node's API or (nats://) from the bus."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import urllib.error
import urllib.request
from typing import Any

#: Over the bus: how long to listen, seconds; every node beats twice a second.
LISTEN_S = 0.7
ASK_WITHIN_S = 5.0


async def network_document(url: str | None) -> dict[str, Any]:
    """What `GET /api/v1.2/network/status` shows. Raises: BusUnavailable, BadInput.

    Over the bus alone `bus.safety` is "" and `alarms` empty: only a node tells them.
    """
    given = url or os.environ.get("QUEZTL_URL", "")
    if given.startswith(("nats://", "tls://")):
        return await _from_bus(given)
    return await asyncio.to_thread(_from_api, given)


def _from_api(given: str) -> dict[str, Any]:
    from mesh.endpoint import LOCAL_API
    from mesh.errors import BadInput, BusUnavailable

    if given and not given.startswith(("http://", "https://")):
        raise BadInput(f"{given!r} is no address of a mesh; use nats://HOST:PORT or http://HOST:PORT")
    api = (given or LOCAL_API).rstrip("/")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{api}/api/v1.2/network/status", timeout=ASK_WITHIN_S) as answer:
            document = json.load(answer)
        document["registry"]["nodes"], document["bus"]["urls"]
        return dict(document)
    except urllib.error.HTTPError as error:
        raise BusUnavailable(f"{api} answers, but not as a node of a mesh (HTTP {error.code})") from None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        hint = "" if given else "; start one with `python -m node`, or name a mesh with --url or QUEZTL_URL"
        raise BusUnavailable(f"no node answers at {api}{hint}") from None


async def _from_bus(urls: str) -> dict[str, Any]:
    from mesh import subjects
    from mesh.client import Mesh
    from mesh.coordination import MeshRecord, decode_lease
    from mesh.membership.mesh_record import read_mesh_record
    from mesh.membership.registry import Registry
    from mesh.views import NetworkView

    async with Mesh(urls) as mesh:
        bus = mesh.bus
        registry = Registry(bus, "", bus.config)
        await registry.start()
        try:
            # not an event to wait for: who stays silent is only known when the time is over
            await asyncio.sleep(LISTEN_S)
            registry.judge()
            lease = await bus.kv(subjects.KV_LEASE).get(subjects.LEASE_KEY)
            record = await read_mesh_record(bus) or MeshRecord()
            queue = await bus.api(f"STREAM.INFO.{subjects.WORK}", {})
            leader = decode_lease(lease.value).node if lease and lease.value else ""
            return NetworkView(
                mesh=record.name,
                mesh_id=record.id,
                leader=leader,
                fence=lease.revision if lease else 0,
                bus_urls=tuple(urls.split(",")),
                safety="",
                nodes=registry.view(leader),
                queued=int(queue["state"]["messages"]),
            ).as_json()
        finally:
            await registry.close()
