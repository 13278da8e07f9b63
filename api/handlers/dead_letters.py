"""Dead letters over HTTP: list, read, replay."""

from __future__ import annotations

from aiohttp import web

from api.documents import render
from api.http.errors import json_reply
from api.http.ids import task_id
from api.http.keys import SERVICES


async def list_dead(request: web.Request) -> web.Response:
    """All of them, oldest first; ?kind= for those of one kind."""
    letters = await request.app[SERVICES].mesh.dead_list(request.query.get("kind", ""))
    return json_reply({"dead": [render.dead(letter) for letter in letters]})


async def show(request: web.Request) -> web.Response:
    """One of them, with its payload."""
    document = render.dead(await request.app[SERVICES].mesh.dead_show(task_id(request)), whole=True)
    try:
        return json_reply(document)
    except TypeError:  # a MessagePack payload may hold what JSON has no form for
        document.pop("payload")
        return json_reply(document)


async def replay(request: web.Request) -> web.Response:
    """202: submitted again as a new task; the letter goes."""
    accepted = await request.app[SERVICES].mesh.dead_replay(task_id(request))
    return json_reply(render.submitted(accepted), 202)
