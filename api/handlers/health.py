"""Whether the process answers (`healthz`), whether it can serve (`readyz`), and the page at the root."""

from __future__ import annotations

from aiohttp import web

from api.http.errors import document, json_reply
from api.http.keys import SERVICES

_PAGE = """<!doctype html><meta charset="utf-8"><title>Queztl</title>
<h1>Queztl</h1>
<p>This is a node of a Queztl compute mesh. Programs talk to it below <code>/api/v1.2</code>:</p>
<ul>
<li><a href="/api/v1.2/network/status">network/status</a>: the nodes of the mesh
<li><a href="/api/v1.2/workloads">workloads</a>: what it can do
<li><a href="/api/v1.2/dead">dead</a>: tasks that used up their attempts
<li><a href="/api/v1.2/openapi.json">openapi.json</a>: every path, for programs
</ul>
<p>On the command line: <code>queztl nodes</code>, <code>queztl submit echo '{"value": 1}' --wait</code>.</p>
"""


async def healthz(request: web.Request) -> web.Response:
    """200 as long as the process answers."""
    return json_reply({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """200 when work can be submitted here, else 503 with what is wrong."""
    ready, checks = request.app[SERVICES].ready()
    if ready:
        return json_reply({"ready": True, "checks": checks})
    wrong = "; ".join(f"{name}: {state}" for name, state in checks.items() if state != "ok")
    answer = document("not_ready", f"This node is not ready ({wrong or 'starting'})", ready=False, checks=checks)
    return json_reply(answer, 503, {"Retry-After": "1"})


async def root(request: web.Request) -> web.Response:
    """What this is, for a person who opens the address in a browser."""
    policy = {"Content-Security-Policy": "default-src 'none'"}
    return web.Response(text=_PAGE, content_type="text/html", headers=policy)
