"""The scaler over HTTP: what it sees, decides and costs, and what people tell it."""

from __future__ import annotations

from aiohttp import web

from api.http.bodies import read_object
from api.http.errors import json_reply
from api.http.keys import SERVICES
from api.services.capacity import CapacityServices
from mesh.errors import Fault, NotFound, bad_input

#: Decisions that are listed unless `limit` says otherwise, and at most.
LISTED, LISTED_MOST = 20, 200


def _capacity(request: web.Request) -> CapacityServices:
    return request.app[SERVICES].capacity


async def status(request: web.Request) -> web.Response:
    """What was last seen and decided."""
    return json_reply(await _capacity(request).status())


async def forecast(request: web.Request) -> web.Response:
    """What is expected."""
    return json_reply(await _capacity(request).forecast())


async def decisions(request: web.Request) -> web.Response:
    """The last decisions."""
    text = request.query.get("limit", str(LISTED))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= LISTED_MOST:
        problem = f"must be a whole number from 1 to {LISTED_MOST}"
        raise bad_input("The query is not valid", [Fault("limit", problem)])
    return json_reply(await _capacity(request).decisions(int(text)))


async def decision(request: web.Request) -> web.Response:
    """One of them, made again."""
    name = request.match_info["id"]
    if not name.isascii() or not name.isdigit() or len(name) > 18:
        raise NotFound(f"{name[:64]!r} is no number of a decision")
    return json_reply(await _capacity(request).decision(int(name)))


async def policy(request: web.Request) -> web.Response:
    """The policy in force, and its versions."""
    return json_reply(await _capacity(request).policy())


async def set_policy(request: web.Request) -> web.Response:
    """Change it."""
    return json_reply(await _capacity(request).set_policy(await read_object(request)))


async def set_manual(request: web.Request) -> web.Response:
    """202: so many nodes from now on; the master follows within seconds."""
    return json_reply(await _capacity(request).set_manual(await read_object(request)), 202)


async def clear_manual(request: web.Request) -> web.Response:
    """Back to what is seen."""
    return json_reply(await _capacity(request).clear_manual())


async def panic(request: web.Request) -> web.Response:
    """Stop everything paid, or allow it again."""
    body = await read_object(request)
    faults = [Fault(str(name)[:64], "is not known here") for name in body if name != "on"]
    if not isinstance(body.get("on"), bool):
        faults.append(Fault("on", "must be true or false"))
    if faults:
        raise bad_input("That can't be done", faults)
    return json_reply(await _capacity(request).panic(bool(body["on"])))


async def cost(request: web.Request) -> web.Response:
    """What costs money."""
    return json_reply(await _capacity(request).cost())
