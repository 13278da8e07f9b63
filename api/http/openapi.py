"""The OpenAPI 3.1 document, made from the route table, the models of api.schema and the kinds' payloads."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.documents import schema
from api.http.keys import ROUTES, SETTINGS
from api.http.route import Answer, Route
from mesh.kinds.table import KINDS

_REF = "#/components/schemas/{model}"
_EVERYWHERE = (403, 421, 500)
_WHAT = {
    400: "Something in the request is wrong; every fault is named.",
    403: "This caller may not do that.",
    404: "There is nothing under that id.",
    406: "The result has no JSON form.",
    409: "It contradicts something already accepted, or there is no result (yet).",
    413: "The body is too large; upload the data as a blob.",
    415: "That kind of body is not taken here.",
    421: "The Host header does not name this node.",
    500: "Something went wrong in this node; its log has the details.",
    503: "The mesh can't take it now; Retry-After says when to try again.",
    507: "The bus has no room left.",
}


async def openapi(request: web.Request) -> web.Response:
    """The document of this very bridge."""
    body = _encoded(request.app[ROUTES], request.app[SETTINGS].version)
    return web.Response(body=body, content_type="application/json")


@lru_cache(maxsize=4)
def _encoded(routes: tuple[Route, ...], version: str) -> bytes:
    return msgspec.json.encode(document(routes, version))


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The document as plain data. Pure."""
    table = tuple(routes)
    definitions, refs = _schemas(table)
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
        "components": {"schemas": definitions},
    }


def _schemas(routes: tuple[Route, ...]) -> tuple[dict[str, Any], dict[type[BaseModel], dict[str, Any]]]:
    models: dict[type[BaseModel], None] = {schema.ErrorDoc: None}
    for route in routes:
        for answer in route.answers.values():
            if answer.model is not None:
                models[answer.model] = None
        if route.body is not None:
            models[route.body] = None
    payloads = [spec.payload for spec in KINDS.values()]
    refs, whole = models_json_schema([(model, "validation") for model in (*models, *payloads)], ref_template=_REF)
    definitions = whole["$defs"]
    by_model = {model: refs[model, "validation"] for model in models}
    body = definitions.get("SubmitBody")
    if body is not None:
        body["properties"]["payload"] = {
            "description": "what the kind takes; null or absent: all defaults",
            "anyOf": [*(refs[payload, "validation"] for payload in payloads), {"type": "null"}],
        }
        body["properties"]["workload_type"]["examples"] = list(KINDS)
        body["anyOf"] = [{"required": ["workload_type"]}, {"required": ["kind"]}]
        body["examples"] = [
            {"workload_type": name, "payload": spec.example} for name, spec in KINDS.items() if spec.example
        ]
    return definitions, by_model


def _operation(route: Route, refs: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{route.handler.__name__}_{route.tags[0]}",
        "summary": route.summary,
        "tags": list(route.tags),
    }
    parameters: list[dict[str, Any]] = [
        {"name": query.name, "in": "query", "description": query.what, "schema": query.schema} for query in route.query
    ]
    if "{id}" in route.path:
        parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string"}})
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        media = {"schema": refs[route.body]}
        content = {"application/json": media, "application/msgpack": media}
        operation["requestBody"] = {"required": True, "content": content}
    elif route.takes_bytes:
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    responses = {str(status): _response(answer, refs) for status, answer in route.answers.items()}
    error = {"application/json": {"schema": refs[schema.ErrorDoc]}}
    for status in sorted({*route.errors, *_EVERYWHERE} - set(route.answers)):
        responses[str(status)] = {"description": _WHAT[status], "content": error}
    operation["responses"] = responses
    return operation


def _response(answer: Answer, refs: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    media = {"schema": refs[answer.model]} if answer.model is not None else {}
    return {"description": answer.what, "content": {answer.media: media}}
