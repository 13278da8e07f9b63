"""The mesh as a whole, and the way in for machines that can't see it by multicast."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import ValidationError

from api.documents.schema import RegisterBody
from api.http.bodies import read_object
from api.http.errors import json_reply
from api.http.keys import SERVICES
from mesh.errors import Fault, bad_input
from mesh.kinds.faults import problem_of
from mesh.subjects import is_token


async def status(request: web.Request) -> web.Response:
    """Every node with capabilities, load and state; the master; where the bus is."""
    return json_reply((await request.app[SERVICES].network()).as_json())


async def register(request: web.Request) -> web.Response:
    """The node id and the bus URLs for a machine that posts its name and capabilities."""
    body = read_registration(await read_object(request))
    node, urls = await request.app[SERVICES].register(body.name, body.capabilities, body.labels, body.id)
    return json_reply({"id": node, "bus": {"urls": list(urls)}})


def read_registration(body: dict[str, Any]) -> RegisterBody:
    """Raises: BadInput with every fault."""
    faults: list[Fault] = []
    try:
        registration = RegisterBody.model_validate(body)
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            name = ".".join(str(step) for step in item["loc"])[:80]
            faults.append(Fault(name, problem_of(dict(item))))
        registration = None
    node = body.get("id")
    if isinstance(node, str) and node and not is_token(node):
        faults.append(Fault("id", "must be 1 to 64 letters, digits, '_' or '-'"))
    if registration is None or faults:
        raise bad_input("The registration is not valid", faults)
    return registration
