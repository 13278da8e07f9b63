"""Tasks over HTTP: submit, look, cancel."""

from __future__ import annotations

import asyncio
import math

from aiohttp import web

from api.documents import render
from api.handlers.submission import read_request
from api.http.bodies import read_object
from api.http.errors import json_reply
from api.http.ids import task_id
from api.http.keys import CLOSING, SERVICES, SETTINGS
from mesh.errors import Fault, QueztlError
from mesh.messages import TaskEnd
from mesh.tasks.status import of_end


async def submit(request: web.Request) -> web.Response:
    """202 and where to go on; with ?wait=SECONDS 200 and the status of the task, if it ends in time."""
    wait_s, faults = _wait_s(request)
    wish = read_request(await read_object(request), faults)
    services = request.app[SERVICES]
    accepted = await services.accept(wish)
    if wait_s > 0:
        end = await _ended(request, accepted.id, wait_s)
        if end is not None:
            return status_reply(of_end(end))
    document = render.submitted(accepted)
    return json_reply(document, 202, {"Location": document["links"]["status"]})


def _wait_s(request: web.Request) -> tuple[float, tuple[Fault, ...]]:
    most = request.app[SETTINGS].max_wait_s
    text = request.query.get("wait") if request.query_string else None
    if text is None:
        return 0.0, ()
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = math.nan
    if not 0 <= wait_s <= most:
        return 0.0, (Fault("wait", f"must be a number of seconds from 0 to {most:g}"),)
    return wait_s, ()


async def _ended(request: web.Request, task: str, wait_s: float) -> TaskEnd | None:
    """How the task ended; None when it has not in time, or the bridge is leaving.

    No error here may reach the client: the task is accepted, and an error would make it submit again.
    """
    waiting = asyncio.ensure_future(request.app[SERVICES].mesh.wait(task, wait_s))
    closing = asyncio.ensure_future(request.app[CLOSING].wait())
    try:
        await asyncio.wait({waiting, closing}, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    except QueztlError:
        return None
    finally:
        waiting.cancel()
        closing.cancel()


async def status(request: web.Request) -> web.Response:
    """Everything that is known of a task."""
    return status_reply(await request.app[SERVICES].mesh.status(task_id(request)))


async def cancel(request: web.Request) -> web.Response:
    """End a task, wherever it is; its status, which is that of before when it had ended."""
    return status_reply(await request.app[SERVICES].mesh.cancel(task_id(request)))


def status_reply(view: render.TaskView) -> web.Response:
    """StatusDoc; a result that has no JSON form is left out: `links.result` gives it as MessagePack."""
    document = render.status(view)
    try:
        return json_reply(document)
    except TypeError:
        document.pop("result", None)
        return json_reply(document)
