"""The tasks of the mesh over HTTP, page by page."""

from __future__ import annotations

from aiohttp import web

from api.documents import tasks
from api.http.errors import json_reply
from api.http.keys import SERVICES
from api.http.queries import Queries
from mesh.tasks.listing import DEFAULT_LIMIT, MAX_LIMIT
from mesh.views import TaskFilter

#: The states, kinds … that select tasks, and where the page begins.
PARAMETERS = ("state", "kind", "node", "min_age", "limit", "after")


async def list_tasks(request: web.Request) -> web.Response:
    """The next tasks that the filters select."""
    query = Queries(request, PARAMETERS)
    filters = TaskFilter(
        state=query.text("state"),
        kind=query.text("kind").lower(),
        node=query.text("node"),
        min_age_s=query.number("min_age"),
    )
    limit, after = query.whole("limit", DEFAULT_LIMIT, MAX_LIMIT), query.text("after")
    query.check()
    return json_reply(tasks.task_list(await request.app[SERVICES].mesh.task_page(filters, limit, after)))
