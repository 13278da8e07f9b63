"""The OpenAPI 3.1 document, made of the route table, the documents and the payloads of the kinds of work."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.documents.errors import ErrorDoc
from api.documents.schemas import schemas
from api.documents.tasks import SubmitBody
from api.http.keys import ROUTES, SETTINGS
from api.http.route import Answer, Route
from mesh.kinds.table import KINDS

_PYDANTIC_REF = "#/components/schemas/{model}"
_EVERYWHERE = (403, 421, 500)
_WITH_BODY = (400, 408, 413, 415)
_MEANINGS = {
    400: "The request is not valid; every fault is named.",
    403: "This caller may not do that.",
    404: "There is nothing with that id.",
    406: "The result has no JSON form.",
    408: "The body did not arrive in time.",
    409: "It contradicts something already accepted, or there is no result (yet).",
    413: "The body is too large; upload the data as a blob.",
    416: "None of the bytes is in that Range.",
    415: "That type or Content-Encoding of a body is not accepted here; gzip and deflate are.",
    421: "The Host header does not name this node.",
    429: "There are as many of those as there may be; Retry-After says when to try again.",
    500: "Something went wrong in this node; its log has the details.",
    503: "The mesh can't do it now; Retry-After says when to try again.",
    507: "The bus has no room left.",
}


async def openapi(request: web.Request) -> web.Response:
    """The document of this bridge."""
    body = _encoded(request.app[ROUTES], request.app[SETTINGS].version)
    return web.Response(body=body, content_type="application/json")


@lru_cache(maxsize=4)
def _encoded(routes: tuple[Route, ...], version: str) -> bytes:
    return msgspec.json.encode(document(routes, version)) + b"\n"


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The document as plain data."""
    table = tuple(routes)
    components, refs = _components(table)
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.full_path, {})[route.method.lower()] = _operation(route, refs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Queztl",
            "version": version,
            "summary": "The REST bridge of a node: submit work, follow it, read its result.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _components(routes: tuple[Route, ...]) -> tuple[dict[str, Any], dict[type, dict[str, Any]]]:
    """(name -> schema of everything the routes name, and of all payloads; type -> reference to its schema)."""
    answers = [answer.model for route in routes for answer in route.answers.values() if answer.model is not None]
    bodies = [route.body for route in routes if route.body is not None]
    models = [body for body in bodies if issubclass(body, BaseModel)]
    documents = [kind for kind in (ErrorDoc, *answers, *bodies) if not issubclass(kind, BaseModel)]
    payloads = [spec.payload for spec in KINDS.values()]
    components, refs = schemas(documents)
    model_refs, whole = models_json_schema(
        [(model, "validation") for model in (*models, *payloads)], ref_template=_PYDANTIC_REF
    )
    refs |= {model: model_refs[model, "validation"] for model in models}
    components |= whole["$defs"]
    if SubmitBody in refs:
        _describe_submit(components[SubmitBody.__name__], [model_refs[payload, "validation"] for payload in payloads])
    return components, refs


def _describe_submit(body: dict[str, Any], payloads: list[dict[str, Any]]) -> None:
    """Say in the schema of a submission what its type can't: the payload of each kind, and which names are required."""
    fields = body["properties"]
    fields["payload"]["anyOf"] = [*payloads, {"type": "null"}]
    fields["workload_type"]["examples"] = list(KINDS)
    body["anyOf"] = [{"required": ["workload_type"]}, {"required": ["kind"]}]
    body["examples"] = [
        {"workload_type": name, "payload": spec.example} for name, spec in KINDS.items() if spec.example
    ]


def _operation(route: Route, refs: dict[type, dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{route.handler.__name__}_{route.tags[0]}",
        "summary": route.summary,
        "tags": list(route.tags),
    }
    described: list[dict[str, Any]] = [
        {"name": parameter.name, "in": place, "description": parameter.what, "schema": parameter.schema}
        for place, parameters in (("query", route.query), ("header", route.headers))
        for parameter in parameters
    ]
    if "{id}" in route.path:
        described.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
    if described:
        operation["parameters"] = described
    if route.body is not None:
        media = {"schema": refs[route.body]}
        content = {"application/json": media, "application/msgpack": media}
        operation["requestBody"] = {"required": True, "content": content}
    elif route.takes_bytes:
        any_bytes: dict[str, Any] = {"application/octet-stream": {}}
        operation["requestBody"] = {"required": True, "content": any_bytes}
    responses = {str(status): _response(answer, refs) for status, answer in route.answers.items()}
    error = {"application/json": {"schema": refs[ErrorDoc]}}
    with_body = _WITH_BODY if "requestBody" in operation else ()
    for status in sorted({*route.errors, *_EVERYWHERE, *with_body} - set(route.answers)):
        responses[str(status)] = {"description": _MEANINGS[status], "content": error}
    operation["responses"] = responses
    return operation


def _response(answer: Answer, refs: dict[type, dict[str, Any]]) -> dict[str, Any]:
    if not answer.media:
        return {"description": answer.what}
    media: dict[str, Any] = {"schema": refs[answer.model]} if answer.model is not None else {}
    return {"description": answer.what, "content": {answer.media: media}}
