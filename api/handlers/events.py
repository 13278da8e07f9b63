"""Changes of a task as server-sent events: a `state` for each change, then an `end`, and the stream closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from api.documents import tasks
from api.documents.errors import ErrorDoc, error_body
from api.http.ids import task_id
from api.http.keys import CLOSING, SERVICES, SETTINGS
from mesh.errors import QueztlError
from mesh.task_states import FINAL
from mesh.views import TaskView


async def events(request: web.Request) -> web.StreamResponse:
    """The stream. While nothing changes it sends comments, which also detect that the reader has gone."""
    views = request.app[SERVICES].mesh.watch(task_id(request))
    try:
        view: TaskView | None = await anext(views, None)  # before the headers: an unknown task is a proper 404
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        number = 0
        while view is not None and request.method != "HEAD":
            number += 1
            await response.write(_event("end" if view.state in FINAL else "state", _status(view), number))
            try:
                view = await _next(request, response, views)
            except QueztlError as error:
                document = ErrorDoc(error_body(error.code, error.message))
                await response.write(_event("error", msgspec.json.encode(document), number))
                break
        await response.write_eof()
        return response
    finally:
        close = getattr(views, "aclose", None)
        if close is not None:
            await close()


async def _next(request: web.Request, response: web.StreamResponse, views: AsyncIterator[TaskView]) -> TaskView | None:
    """The next view; None when there is none, or the bridge is closing."""
    ping_s = request.app[SETTINGS].event_ping_s
    coming = asyncio.ensure_future(_step(views))
    closing = asyncio.ensure_future(request.app[CLOSING].wait())
    try:
        while True:
            done, _ = await asyncio.wait({coming, closing}, timeout=ping_s, return_when=asyncio.FIRST_COMPLETED)
            if coming in done:
                return coming.result()
            if closing in done:
                return None
            await response.write(b": still here\n\n")
    finally:
        closing.cancel()
        if not coming.done():
            coming.cancel()
            # The generator must have stopped before it can be closed.
            await asyncio.gather(coming, return_exceptions=True)


async def _step(views: AsyncIterator[TaskView]) -> TaskView | None:
    return await anext(views, None)


def _status(view: TaskView) -> bytes:
    try:
        return msgspec.json.encode(tasks.status(view))
    except TypeError:  # the result has no JSON form
        return msgspec.json.encode(tasks.status(view, with_result=False))


def _event(name: str, data: bytes, number: int) -> bytes:
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name.encode(), number, data)
