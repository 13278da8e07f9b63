"""What happens to a task, as server-sent events: a `state` for each change, an `end`, and the stream closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from api.documents import render
from api.http.errors import document
from api.http.ids import task_id
from api.http.keys import CLOSING, SERVICES, SETTINGS
from mesh.errors import QueztlError
from mesh.task_states import FINAL
from mesh.views import TaskView


async def events(request: web.Request) -> web.StreamResponse:
    """The stream. A quiet one sends a comment now and then, which also notices that the reader has gone."""
    views = request.app[SERVICES].mesh.watch(task_id(request))
    try:
        view: TaskView | None = await anext(views, None)  # an unknown task is still a proper 404 here
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        number = 0
        while view is not None and request.method != "HEAD":
            number += 1
            name = "end" if view.state in FINAL else "state"
            await response.write(_event(name, render.status(view), number))
            try:
                view = await _next(request, response, views)
            except QueztlError as error:
                await response.write(_event("error", document(error.code, error.message), number))
                break
        await response.write_eof()
        return response
    finally:
        close = getattr(views, "aclose", None)
        if close is not None:
            await close()


async def _next(request: web.Request, response: web.StreamResponse, views: AsyncIterator[TaskView]) -> TaskView | None:
    """The next view; None when there is none, or the bridge is leaving."""
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
            # The generator must have stopped before anybody may close it.
            await asyncio.gather(coming, return_exceptions=True)


async def _step(views: AsyncIterator[TaskView]) -> TaskView | None:
    return await anext(views, None)


def _event(name: str, data: dict[str, Any], number: int) -> bytes:
    try:
        text = msgspec.json.encode(data)
    except TypeError:
        text = msgspec.json.encode({key: value for key, value in data.items() if key != "result"})
    return b"event: %s\nid: %d\ndata: %s\n\n" % (name.encode(), number, text)
