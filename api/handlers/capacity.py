"""The scaler over HTTP: its measurements, decisions and costs, and the settings and orders of people."""

from __future__ import annotations

from aiohttp import web

from api.documents.errors import excerpt
from api.http.bodies import read_object
from api.http.errors import json_reply
from api.http.ids import whole_number
from api.http.keys import SERVICES
from api.http.queries import Queries
from api.services.capacity import CapacityServices
from mesh.errors import Fault, NotFound, bad_input

#: How many decisions are listed: unless `limit` says otherwise, and at most.
DEFAULT_LIMIT, MAX_LIMIT = 20, 200


def _capacity(request: web.Request) -> CapacityServices:
    return request.app[SERVICES].capacity


async def status(request: web.Request) -> web.Response:
    """The last measurements and decisions."""
    return json_reply(await _capacity(request).status())


async def forecast(request: web.Request) -> web.Response:
    """The expected load."""
    return json_reply(await _capacity(request).forecast())


async def decisions(request: web.Request) -> web.Response:
    """The last decisions."""
    query = Queries(request, ("limit",))
    limit = query.whole("limit", DEFAULT_LIMIT, MAX_LIMIT)
    query.check()
    return json_reply(await _capacity(request).decisions(limit))


async def decision(request: web.Request) -> web.Response:
    """One decision with its input, and its replay."""
    name = request.match_info["id"]
    number = whole_number(name)
    if not number:
        raise NotFound(f"{excerpt(name, 64)!r} is not a number of a decision")
    return json_reply(await _capacity(request).decision(number))


async def policy(request: web.Request) -> web.Response:
    """The policy in force, and its versions."""
    return json_reply(await _capacity(request).policy())


async def set_policy(request: web.Request) -> web.Response:
    """Change the policy."""
    return json_reply(await _capacity(request).set_policy(await read_object(request)))


async def set_manual(request: web.Request) -> web.Response:
    """202: hold a number of nodes from now on; the leader follows within seconds."""
    return json_reply(await _capacity(request).set_manual(await read_object(request)), 202)


async def clear_manual(request: web.Request) -> web.Response:
    """Let the number of nodes follow the load again."""
    return json_reply(await _capacity(request).clear_manual())


async def panic(request: web.Request) -> web.Response:
    """Stop all paid nodes, or allow paid nodes again."""
    body = await read_object(request)
    faults = [Fault(name[:64], "is not a known field") for name in body if name != "on"]
    if not isinstance(body.get("on"), bool):
        faults.append(Fault("on", "must be true or false"))
    if faults:
        raise bad_input("The request is not valid", faults)
    return json_reply(await _capacity(request).panic(bool(body["on"])))


async def cost(request: web.Request) -> web.Response:
    """What costs money now, and what was spent."""
    return json_reply(await _capacity(request).cost())
