"""How a program finds the bus: an address it was given, the environment, this machine's own node, the LAN."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import urllib.error
import urllib.request
from typing import Any

from mesh.errors import BadInput, BusUnavailable

LOCAL_API = "http://127.0.0.1:8000"
ASK_WITHIN_S = 3.0


async def bus_urls(url: str | None) -> tuple[str, ...]:
    """Where the bus is.

    `url` may name a bus server (nats://host:port), any node's API (http://host:port), or be None: then
    QUEZTL_URL, else the node on this machine.
    Raises: BadInput for another scheme; BusUnavailable when nobody answers, with what to do.
    """
    given = url or os.environ.get("QUEZTL_URL", "")
    if given.startswith(("nats://", "tls://")):
        return tuple(part.strip() for part in given.split(","))
    if given and not given.startswith(("http://", "https://")):
        raise BadInput(f"{given!r} is no address of a mesh; use nats://HOST:PORT or http://HOST:PORT")
    api = (given or LOCAL_API).rstrip("/")
    try:
        document = await asyncio.to_thread(_get_json, f"{api}/api/v1.2/network/status")
        return tuple(document["bus"]["urls"])
    except (OSError, ValueError, KeyError, TypeError):
        hint = "" if given else "; start one with `python -m node`, or name a mesh with --url or QUEZTL_URL"
        raise BusUnavailable(f"no node answers at {api}{hint}") from None


def _get_json(url: str) -> dict[str, Any]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ASK_WITHIN_S) as answer:
            return dict(json.load(answer))
    except (urllib.error.HTTPError, http.client.HTTPException) as error:
        raise OSError(str(error)) from None
