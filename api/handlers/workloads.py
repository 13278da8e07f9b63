"""Tasks over HTTP: submit, status, cancel."""

from __future__ import annotations

import asyncio
import math

from aiohttp import web

from api.documents import tasks
from api.handlers.submission import KEY_HEADER, header_faults, read_request, with_key
from api.http.bodies import read_object
from api.http.errors import json_reply
from api.http.ids import task_id
from api.http.keys import CLOSING, SERVICES, SETTINGS
from mesh.errors import Fault, QueztlError
from mesh.messages import TaskEnd
from mesh.tasks.status import of_end
from mesh.views import TaskView


async def submit(request: web.Request) -> web.Response:
    """202 and the task's paths; with ?wait=SECONDS 200 and the task's status, if it ends in time."""
    wait_s, faults = _wait_s(request)
    faults += header_faults(request.headers)
    keys = request.headers.getall(KEY_HEADER, ())
    submission = read_request(*with_key(await read_object(request), keys, faults))
    accepted = await request.app[SERVICES].accept(submission)
    if wait_s > 0:
        end = await _ended(request, accepted.id, wait_s)
        if end is not None:
            return status_reply(of_end(end))
    return json_reply(tasks.submitted(accepted), 202, {"Location": tasks.links(accepted.id).status})


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
    """The task's result record; None when it has not ended in time, or the bridge is closing.

    No error here may reach the client: the task is accepted, and an error would make the client submit it again.
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
    """All that is known of a task."""
    return status_reply(await request.app[SERVICES].mesh.status(task_id(request)))


async def cancel(request: web.Request) -> web.Response:
    """Cancel a task and answer with its status; a task that has ended keeps its own."""
    return status_reply(await request.app[SERVICES].mesh.cancel(task_id(request)))


def status_reply(view: TaskView) -> web.Response:
    """StatusDoc; a result without a JSON form is left out: `links.result` returns it as MessagePack."""
    try:
        return json_reply(tasks.status(view))
    except TypeError:
        return json_reply(tasks.status(view, with_result=False))
