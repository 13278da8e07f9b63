"""A task's result: its bytes when it is bytes, else JSON, or MessagePack for clients that accept it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from api.documents import tasks
from api.documents.errors import ErrorDoc, error_body
from api.handlers.blobs import content
from api.http import streaming
from api.http.bodies import MSGPACK
from api.http.errors import NotAcceptable, json_reply
from api.http.ids import is_sequence, task_id
from api.http.keys import SERVICES
from mesh import decoding
from mesh.messages import TaskEnd, encode
from mesh.views import TaskView

NIL = encode(None)


async def result(request: web.Request) -> web.StreamResponse:
    """200 with the result; 409 with Retry-After while the task has not ended; 409 with the reason when it has none."""
    mesh, task = request.app[SERVICES].mesh, task_id(request)
    if is_sequence(task):
        task = (await mesh.status(task)).id
    end = await mesh.end(task)
    if end is None:
        view = await mesh.status(task)
        end = await mesh.end(task) if view.ended_at else None
        if end is None:
            return _not_ended(view)
    if end.state != "done":
        return json_reply(tasks.no_result(end), 409)
    if end.content_type:
        return await _bytes(request, end)
    if end.result_ref is None:
        return _value(request, bytes(end.result) or NIL)
    _, chunks = await mesh.open_blob(end.result_ref.blob)
    return _value(request, b"".join([chunk async for chunk in chunks]))


def _not_ended(view: TaskView) -> web.Response:
    events = tasks.links(view.id).events
    message = f"The task has not ended, it is {view.state}; ask again, or follow {events}."
    document = ErrorDoc(error_body("not_ended", message), id=view.id, state=view.state)
    return json_reply(document, 409, {"Retry-After": "1"})


async def _bytes(request: web.Request, end: TaskEnd) -> web.StreamResponse:
    if end.result_ref is not None:
        found = await content(request.app[SERVICES].mesh, end.result_ref.blob, end.content_type)
        return await streaming.send(request, found)
    data = decoding.result(end.result)
    body = data if isinstance(data, bytes) else b"" if data is None else str(data).encode()

    async def part(start: int, length: int) -> AsyncIterator[bytes]:
        return _once(body[start : start + length])

    return await streaming.send(request, streaming.Content(end.id, end.content_type, len(body), _once(body), part))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _value(request: web.Request, packed: bytes) -> web.Response:
    if request.headers.get("Accept", "").partition(";")[0].strip() in MSGPACK:
        return web.Response(body=packed, content_type=MSGPACK[0])
    try:
        return json_reply(decoding.result(packed))
    except TypeError:
        raise NotAcceptable from None
