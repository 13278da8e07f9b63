"""One call of a node's API, for the commands that no bus connection can do."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import urllib.error
import urllib.request
from typing import Any

WITHIN_S = 15.0


async def call(url: str | None, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer's document. Raises: BadInput when the address is no API's, BusUnavailable when nobody answers; what
    the node refuses as BadInput (400, with every fault), NotFound (404), Conflict (409) or BusUnavailable."""
    return await asyncio.to_thread(_call, url or os.environ.get("QUEZTL_URL", ""), method, path, body)


def _call(given: str, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    from api.http.route import PREFIX
    from mesh.endpoint import LOCAL_API
    from mesh.errors import BadInput, BusUnavailable, Conflict, Fault, NotFound

    if given and not given.startswith(("http://", "https://")):
        raise BadInput(f"this command needs a node's API, such as {LOCAL_API}, not {given!r}")
    api = (given or LOCAL_API).rstrip("/")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"{api}{PREFIX}{path}", data, method=method)
    try:
        with opener.open(request, timeout=WITHIN_S) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        faults: tuple[Fault, ...] = ()
        try:
            told = json.load(error)["error"]
            message = str(told["message"])
            faults = tuple(Fault(str(one["field"]), str(one["problem"])) for one in told["faults"])
        except (ValueError, KeyError, TypeError):
            message = f"{api} answers, but not as a node of a mesh (HTTP {error.code})"
        if error.code == 400:
            raise BadInput(message, faults) from None
        raise {404: NotFound, 409: Conflict}.get(error.code, BusUnavailable)(message) from None
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        hint = "" if given else "; start one with `python -m node`, or name a mesh with --url or QUEZTL_URL"
        raise BusUnavailable(f"no node answers at {api}{hint}") from None
