"""Dead letters over HTTP: list, show, replay."""

from __future__ import annotations

from aiohttp import web
from msgspec import UNSET
from msgspec.structs import replace

from api.documents import tasks
from api.http.errors import json_reply
from api.http.ids import task_id
from api.http.keys import SERVICES
from api.http.queries import Queries
from mesh.tasks.dead_letters import DEFAULT_LIMIT, MAX_LIMIT

PARAMETERS = ("kind", "limit", "after")


async def list_dead(request: web.Request) -> web.Response:
    """The next dead letters, oldest first; ?kind= selects those of a kind."""
    query = Queries(request, PARAMETERS)
    kind, after = query.text("kind"), query.text("after")
    limit = query.whole("limit", DEFAULT_LIMIT, MAX_LIMIT)
    query.check()
    return json_reply(tasks.dead_list(await request.app[SERVICES].mesh.dead_page(kind, limit, after)))


async def show(request: web.Request) -> web.Response:
    """One dead letter with its payload."""
    document = tasks.dead(await request.app[SERVICES].mesh.dead_show(task_id(request)), with_payload=True)
    try:
        return json_reply(document)
    except TypeError:  # a MessagePack payload can hold values that JSON can't
        return json_reply(replace(document, payload=UNSET))


async def replay(request: web.Request) -> web.Response:
    """202: submitted again as a new task; the dead letter is removed."""
    accepted = await request.app[SERVICES].mesh.dead_replay(task_id(request))
    return json_reply(tasks.submitted(accepted), 202)
