"""Calls of a node's REST API: by the command line, the client, the doctor, a node that joins, the benchmarks.

Standard library only, because the command line must start fast. Proxies are ignored: nodes are reached directly.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mesh.errors import BadInput, BusUnavailable, Conflict, Fault, NotFound

API_PREFIX = "/api/v1.2"
LOCAL_API = "http://127.0.0.1:8000"
DEFAULT_PORT = 8000
BUS_SCHEMES = ("nats://", "tls://")
API_SCHEMES = ("http://", "https://")
CALL_TIMEOUT_S = 15.0
#: The status document of 1,000 nodes has 3 MB.
MAX_REPLY_BYTES = 64 << 20


@dataclass(frozen=True)
class Reply:
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    """As the server spells their names."""
    body: bytes

    def document(self) -> dict[str, Any]:
        """The body as a JSON object. Raises: ValueError."""
        value = json.loads(self.body)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        return value


def mesh_address(url: str | None = None) -> str:
    """The address of a mesh: `url`, else QUEZTL_URL, else the node on this machine.

    HOST:PORT means http://HOST:PORT, a node's API. Addresses of the bus (nats://, tls://) are returned as they are.
    Raises: BadInput for another scheme, or an address without a host or with an impossible port.
    """
    given = (url or os.environ.get("QUEZTL_URL", "")).strip()
    if not given:
        return LOCAL_API
    if given.startswith(BUS_SCHEMES):
        return given
    address = (given if "://" in given else f"http://{given}").rstrip("/")
    try:
        parts = urlsplit(address)
        usable = address.startswith(API_SCHEMES) and bool(parts.hostname) and not re.search(r"\s", address)
        has_port = parts.port is not None
    except ValueError:
        usable = has_port = False
    if not usable:
        raise BadInput(f"{given!r} is not the address of a mesh; use nats://HOST:PORT or http://HOST:PORT")
    return address if "://" in given or has_port else f"{address}:{DEFAULT_PORT}"


def send(url: str, method: str = "GET", body: Any = None, *, timeout_s: float = CALL_TIMEOUT_S) -> Reply:
    """One request, blocking; `body` is sent as JSON. Error statuses are returned, not raised.

    Raises: OSError when nothing answers within `timeout_s`, or what answers does not speak HTTP.
    """
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Content-Type": "application/json"} if body is not None else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url, data, headers, method=method)
        with opener.open(request, timeout=timeout_s) as answer:
            return Reply(answer.status, dict(answer.headers), answer.read(MAX_REPLY_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, dict(error.headers), error.read(MAX_REPLY_BYTES))
    except http.client.HTTPException:
        raise OSError("what answers does not speak HTTP") from None
    except (ValueError, OverflowError) as error:
        raise OSError(str(error)) from None


async def call(
    api: str, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float = CALL_TIMEOUT_S
) -> dict[str, Any]:
    """Call the API at `api` (http://HOST:PORT); `path` is below API_PREFIX. Returns the JSON document.

    Raises: BadInput (400, with every fault), NotFound (404), Conflict (409), each with the node's own sentence;
    BusUnavailable for every other refusal, and when no node answers.
    """
    try:
        reply = await asyncio.to_thread(send, f"{api}{API_PREFIX}{path}", method, body, timeout_s=timeout_s)
    except OSError as error:
        raise BusUnavailable(no_node(api, error)) from None
    try:
        document = reply.document()
        if reply.status < 400:
            return document
        error_body = document["error"]
        message = str(error_body["message"])
        faults = tuple(Fault(str(fault["field"]), str(fault["problem"])) for fault in error_body["faults"])
    except (ValueError, KeyError, TypeError):
        raise BusUnavailable(f"{api} answers, but not as a node of a mesh (HTTP {reply.status})") from None
    if reply.status == 400:
        raise BadInput(message, faults)
    raise {404: NotFound, 409: Conflict}.get(reply.status, BusUnavailable)(message)


async def network_status(api: str, *, timeout_s: float = CALL_TIMEOUT_S) -> dict[str, Any]:
    """The document of network/status, with the parts every caller needs. Raises: BusUnavailable."""
    document = await call(api, "GET", "/network/status", timeout_s=timeout_s)
    try:
        document["registry"]["nodes"], document["bus"]["urls"]
    except (KeyError, TypeError):
        raise BusUnavailable(f"{api} answers, but not as a node of a mesh") from None
    return document


def no_node(api: str, error: OSError) -> str:
    """The sentence when nothing answers at `api`, with the reason, and what to do if the address is the default."""
    reason = getattr(error, "reason", error)
    why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    hint = "; start one with `python -m node`, or name a mesh with --url or QUEZTL_URL" if api == LOCAL_API else ""
    return f"no node answers at {api} ({why}){hint}"
