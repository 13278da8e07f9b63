"""Changes of a task as server-sent events: a `state` for each change, then an `end`, and the stream closes.

The id of an event is `<number>-<checksum of its data>`. A reader that comes back with `Last-Event-ID`, at this node or
at another one, gets further numbers, and not the event that it already has.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import NamedTuple
from zlib import crc32

import msgspec
from aiohttp import web

from api.documents import tasks
from api.documents.errors import ErrorDoc, error_body
from api.http.ids import task_id
from api.http.keys import CLOSING, SERVICES, SETTINGS, USAGE
from mesh.errors import QueztlError
from mesh.task_states import FINAL
from mesh.views import TaskView

_HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
_ID = re.compile(r"([0-9]{1,15})-([0-9a-f]{8})", re.ASCII)


class EventId(NamedTuple):
    """Which event: its number in the stream of one reader, and the checksum of its data."""

    number: int = 0
    checksum: str = ""

    def __str__(self) -> str:
        return f"{self.number}-{self.checksum}"


def last_event_id(header: str) -> EventId:
    """The event named by a `Last-Event-ID` header; no event for text that is no id of this API. Pure."""
    match = _ID.fullmatch(header.strip())
    return EventId(int(match[1]), match[2]) if match else EventId()


async def events(request: web.Request) -> web.StreamResponse:
    """The stream. While nothing changes it sends comments, which also detect that the reader has gone.

    204, which ends the attempts of an EventSource, when the reader already has the `end`. Raises: Busy at the limit.
    """
    with request.app[USAGE].event_stream():
        return await _events(request)


async def _events(request: web.Request) -> web.StreamResponse:
    views = request.app[SERVICES].mesh.watch(task_id(request))
    last = last_event_id(request.headers.get("Last-Event-ID", ""))
    try:
        view: TaskView | None = await anext(views, None)  # before the headers: an unknown task is a proper 404
        if view is not None and view.state in FINAL and _id_of(_status(view), last) == last:
            return web.Response(status=204)
        response = web.StreamResponse(headers=_HEADERS)
        await response.prepare(request)
        while view is not None and request.method != "HEAD":
            data = _status(view)
            event = _id_of(data, last)
            if event != last:
                await response.write(_event("end" if view.state in FINAL else "state", data, event))
                last = event
            try:
                view = await _next(request, response, views)
            except QueztlError as error:
                document = ErrorDoc(error_body(error.code, error.message))
                await response.write(_event("error", msgspec.json.encode(document)))
                break
        await response.write_eof()
        return response
    finally:
        close = getattr(views, "aclose", None)
        if close is not None:
            await close()


def _id_of(data: bytes, last: EventId) -> EventId:
    """The id of the event with `data` that follows `last`; `last` itself if that has the same data. Pure."""
    checksum = f"{crc32(data):08x}"
    return last if checksum == last.checksum else EventId(last.number + 1, checksum)


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


def _event(name: str, data: bytes, event: EventId | None = None) -> bytes:
    """An event. One without an id, an error, leaves the reader's last id as it is."""
    number = f"id: {event}\n".encode() if event is not None else b""
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), number, data)
