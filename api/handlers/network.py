"""The mesh as a whole, and registration for machines that multicast does not reach."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from api.documents.network import RegisteredDoc
from api.documents.requests import RegisterBody
from api.http.bodies import checked, read_object
from api.http.errors import json_reply
from api.http.keys import SERVICES, SETTINGS
from mesh.errors import Fault, bad_input
from mesh.subjects import is_token
from mesh.views import BusView


async def status(request: web.Request) -> web.Response:
    """Every node with its capabilities, load and state; the leader; where the bus is."""
    return json_reply(await request.app[SERVICES].network())


async def register(request: web.Request) -> web.Response:
    """The node id and the bus URLs for a machine that posts its name and capabilities."""
    limits = request.app[SETTINGS].limits
    body = read_registration(await read_object(request, limits.registration_bytes))
    node, urls = await request.app[SERVICES].register(body.name, body.capabilities, body.labels, body.id)
    return json_reply(RegisteredDoc(node, BusView(urls)))


def read_registration(body: dict[str, Any]) -> RegisterBody:
    """Raises: BadInput with every fault."""
    registration, faults = checked(RegisterBody, body)
    node = body.get("id")
    if isinstance(node, str) and node and not is_token(node):
        faults.append(Fault("id", "must be 1 to 64 letters, digits, '_' or '-'"))
    if registration is None or faults:
        raise bad_input("The registration is not valid", faults)
    return registration
