"""The benchmark suite over HTTP: what is known, and runs."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import ValidationError

from api.documents.render import rfc3339
from api.documents.schema import BenchRunBody
from api.http.bodies import read_object
from api.http.errors import json_reply
from api.http.keys import SERVICES
from mesh.benchmarks import NAMES, BenchRun
from mesh.errors import Fault, NotFound, bad_input
from mesh.kinds.faults import problem_of
from mesh.node_api import API_PREFIX
from mesh.subjects import is_token

_OUTCOME = ("node", "state", "at", "reason", "headline", "figures", "quick")


async def listed(request: web.Request) -> web.Response:
    """Every benchmark with its last result, or `never run`."""
    known = await request.app[SERVICES].benchmarks.latest()
    return json_reply({"benchmarks": [_benchmark(name, known.get(name, [])) for name in NAMES]})


async def run(request: web.Request) -> web.Response:
    """202: a run has begun; where it is."""
    body = read_run(await read_object(request))
    nodes = [] if body.nodes == "all" else body.nodes
    begun = await request.app[SERVICES].benchmarks.start(body.names or list(NAMES), nodes, body.quick)
    document = run_document(begun)
    return json_reply(document, 202, {"Location": document["links"]["status"]})


async def status(request: web.Request) -> web.Response:
    """Where a run is."""
    return json_reply(run_document(await request.app[SERVICES].benchmarks.status(_id(request))))


async def cancel(request: web.Request) -> web.Response:
    """Stop a run; what was measured until then stays."""
    return json_reply(run_document(await request.app[SERVICES].benchmarks.cancel(_id(request))))


def read_run(body: dict[str, Any]) -> BenchRunBody:
    """Raises: BadInput with every fault."""
    faults: list[Fault] = []
    wish = BenchRunBody()
    try:
        wish = BenchRunBody.model_validate(body)
    except ValidationError as error:
        faults += [
            Fault(".".join(str(step) for step in item["loc"])[:80], problem_of(dict(item)))
            for item in error.errors(include_url=False, include_input=False)
        ]
    faults += [
        Fault("names", f"has {name[:64]!r}, which is none of {', '.join(NAMES)}")
        for name in wish.names
        if name not in NAMES
    ]
    if faults:
        raise bad_input("The benchmark run is not valid", faults)
    return wish


def run_document(one: BenchRun) -> dict[str, Any]:
    """A run as clients see it. Pure."""
    here = f"{API_PREFIX}/benchmarks/realworld/runs/{one.id}"
    return {
        "id": one.id,
        "state": one.state,
        "names": list(one.names),
        "nodes": list(one.nodes),
        "quick": one.quick,
        "progress": 1.0 if one.state == "done" else one.done / one.total if one.total else 0.0,
        "total": one.total,
        "done": one.done,
        "benchmark": one.benchmark,
        "node": one.node,
        "repetition": one.repetition,
        "last": one.last,
        "began_at": rfc3339(one.began_at),
        "ended_at": rfc3339(one.ended_at),
        "reason": one.reason,
        "links": {"status": here, "cancel": here, "results": f"{API_PREFIX}/benchmarks/realworld"},
    }


def _benchmark(name: str, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    shown = [{field: one.get(field) for field in _OUTCOME} for one in outcomes]
    return {"name": name, "title": NAMES[name], "last": shown[0] if shown else "never run", "nodes": shown}


def _id(request: web.Request) -> str:
    name = request.match_info["id"]
    if not is_token(name):
        raise NotFound(f"{name[:64]!r} is no id of a benchmark run")
    return name
