"""Every error as one document: {"error": {"code", "message", "faults": [{"field", "problem"}]}}.

The message is for people and never holds a traceback; what nobody expected gets an id that is in the log.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec
from aiohttp import web

from mesh.errors import BadInput, Busy, QueztlError

log = logging.getLogger(__name__)


class NotAcceptable(QueztlError):
    """The result can't be shown as JSON; ask for it with the header Accept: application/msgpack."""

    http_status = 406
    code = "not_acceptable"


class UnsupportedType(QueztlError):
    """That kind of body is not taken here."""

    http_status = 415
    code = "unsupported_type"


def document(code: str, message: str, faults: tuple[Any, ...] = (), **more: Any) -> dict[str, Any]:
    """The one error document; `more` stands beside "error"."""
    listed = [{"field": fault.field, "problem": fault.problem} for fault in faults]
    return {"error": {"code": code, "message": sentence(message), "faults": listed}, **more}


def sentence(text: str) -> str:
    """`text` with a capital and a full stop."""
    text = text.strip() or "Something went wrong"
    first = text if text[:1].isupper() or not text[:1].isalpha() else text[0].upper() + text[1:]
    return first if first[-1] in ".!?" else first + "."


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer. Raises: TypeError when `value` has no JSON form."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=headers, content_type="application/json"
    )


def of_error(error: QueztlError) -> web.Response:
    """The answer to an error that says itself who must act."""
    headers = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, ceil(error.retry_after_s)))
    faults = error.faults if isinstance(error, BadInput) else ()
    return json_reply(document(error.code, error.message, faults), error.http_status, headers)


def of_http(error: web.HTTPException, request: web.Request, max_body_bytes: int) -> web.StreamResponse:
    """What aiohttp raises itself: no such route, no such method, a body past the limit."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return json_reply(document("too_large", too_large(max_body_bytes)), 413)
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method[:20]} is not supported here; {allowed} is."
        return json_reply(document("unsupported", message), 405, {"Allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        message = "There is nothing at this path; /api/v1.2/openapi.json lists what there is."
        return json_reply(document("not_found", message), 404)
    if error.status < 400:
        return error
    try:
        code = HTTPStatus(error.status).phrase.lower().replace(" ", "_")
    except ValueError:
        code = "http"
    return json_reply(document(code, error.text or error.reason), error.status)


def of_unexpected(error: Exception, request: web.Request, request_id: str) -> web.Response:
    """What nobody expected: the reason is in the log, under the id in the answer."""
    log.error("request %s failed: %s %s: %r", request_id, request.method, request.path, error, exc_info=error)
    return json_reply(
        document(
            "internal",
            f"Something went wrong in this node; its log has the details under the id {request_id}.",
            id=request_id,
        ),
        500,
    )


def too_large(limit_bytes: int) -> str:
    """What to do with a body past the limit."""
    return (
        f"The body is larger than {limit_bytes} bytes; upload the data with POST /api/v1.2/blobs and give the "
        'payload {"blob": "b-…"} in its place.'
    )
