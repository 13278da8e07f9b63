"""Whether the process answers (`healthz`), whether work can be submitted (`readyz`), and the page at the root."""

from __future__ import annotations

from aiohttp import web

from api.documents.errors import error_body
from api.documents.network import HealthDoc, ReadyDoc
from api.http.errors import json_reply
from api.http.keys import SERVICES

_PAGE = """<!doctype html><meta charset="utf-8"><title>Queztl</title>
<h1>Queztl</h1>
<p>This is a node of a Queztl compute mesh. Programs use it below <code>/api/v1.2</code>:</p>
<ul>
<li><a href="/api/v1.2/network/status">network/status</a>: the nodes of the mesh
<li><a href="/api/v1.2/workloads">workloads</a>: the kinds of work
<li><a href="/api/v1.2/workloads/tasks">workloads/tasks</a>: the tasks that wait, run and have ended
<li><a href="/api/v1.2/dead">dead</a>: tasks that used up their attempts
<li><a href="/api/v1.2/openapi.json">openapi.json</a>: every path, for programs
</ul>
<p>On the command line: <code>queztl nodes</code>, <code>queztl submit echo '{"value": 1}' --wait</code>.</p>
"""


async def healthz(request: web.Request) -> web.Response:
    """200 as long as the process answers."""
    return json_reply(HealthDoc("ok"))


async def readyz(request: web.Request) -> web.Response:
    """200 when work can be submitted at this node, else 503 with what is wrong."""
    ready, checks = request.app[SERVICES].ready()
    if ready:
        return json_reply(ReadyDoc(True, checks))
    wrong = "; ".join(f"{name}: {state}" for name, state in checks.items() if state != "ok")
    error = error_body("not_ready", f"This node is not ready ({wrong or 'starting'})")
    return json_reply(ReadyDoc(False, checks, error), 503, {"Retry-After": "1"})


async def root(request: web.Request) -> web.Response:
    """A page for people who open the address in a browser."""
    policy = {"Content-Security-Policy": "default-src 'none'"}
    return web.Response(text=_PAGE, content_type="text/html", headers=policy)
