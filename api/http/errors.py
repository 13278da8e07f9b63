"""Answers in JSON, and the answer to every error: the error document.

A message never holds a traceback; an unexpected error gets an id, under which the log has the details.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from math import ceil
from typing import Any

import msgspec
from aiohttp import web

from api.documents.errors import ErrorDoc, error_body
from api.http.encodings import ACCEPTED, UnsupportedEncoding
from mesh.errors import BadInput, Busy, QueztlError
from mesh.node_api import API_PREFIX

log = logging.getLogger(__name__)


class NotAcceptable(QueztlError):
    """The result has no JSON form; ask for it with the header Accept: application/msgpack."""

    http_status = 406
    code = "not_acceptable"


class UnsupportedType(QueztlError):
    """That type of body is not accepted here."""

    http_status = 415
    code = "unsupported_type"


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer, which ends with a newline for terminals. Raises: TypeError when `value` has no JSON form."""
    body = msgspec.json.encode(value) + b"\n"
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def of_error(error: QueztlError) -> web.Response:
    """The answer to an error of the mesh, which carries its status and code."""
    headers: dict[str, str] = {}
    if isinstance(error, Busy):
        headers["Retry-After"] = str(max(1, ceil(error.retry_after_s)))
    if isinstance(error, UnsupportedEncoding):
        headers["Accept-Encoding"] = ACCEPTED
    faults = error.faults if isinstance(error, BadInput) else ()
    return json_reply(ErrorDoc(error_body(error.code, error.message, faults)), error.http_status, headers)


def of_http(error: web.HTTPException, request: web.Request, max_body_bytes: int) -> web.StreamResponse:
    """The answer to an error of aiohttp: no such route, no such method, a body over the limit."""
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return http_error(413, "too_large", too_large(max_body_bytes))
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method[:20]} is not supported here; {allowed} is."
        return http_error(405, "unsupported", message, {"Allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        message = f"There is nothing at this path; {API_PREFIX}/openapi.json lists all paths."
        return http_error(404, "not_found", message)
    if error.status < 400:
        return error
    try:
        code = HTTPStatus(error.status).phrase.lower().replace(" ", "_")
    except ValueError:
        code = "http"
    return http_error(error.status, code, error.text or error.reason)


def of_unexpected(error: Exception, request: web.Request, request_id: str) -> web.Response:
    """The answer to an unexpected error: its cause is in the log, under the id in the answer."""
    log.error("request %s failed: %s %s: %r", request_id, request.method, request.path, error, exc_info=error)
    message = f"Something went wrong in this node; its log has the details under the id {request_id}."
    return json_reply(ErrorDoc(error_body("internal", message), id=request_id), 500)


def http_error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """The error document, for errors of HTTP itself."""
    return json_reply(ErrorDoc(error_body(code, message)), status, headers)


def too_large(limit_bytes: int) -> str:
    """The sentence about a body over the limit."""
    return (
        f"The body is larger than {limit_bytes} bytes; upload the data with POST {API_PREFIX}/blobs and give the "
        'payload {"blob": "b-…"} in its place.'
    )
