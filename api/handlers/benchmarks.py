"""The benchmark suite over HTTP: the last results, and runs."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from api.documents.benchmarks import bench_run, benchmark, run_links
from api.documents.errors import excerpt
from api.documents.requests import BenchRunBody
from api.http.bodies import checked, read_object
from api.http.errors import json_reply
from api.http.keys import SERVICES
from mesh.benchmarks import NAMES
from mesh.errors import Fault, NotFound, bad_input
from mesh.subjects import is_token


async def listed(request: web.Request) -> web.Response:
    """Every benchmark with its last result, or "never run"."""
    latest = await request.app[SERVICES].benchmarks.latest()
    return json_reply({"benchmarks": [benchmark(name, latest.get(name, [])) for name in NAMES]})


async def run(request: web.Request) -> web.Response:
    """202: the run has begun, with its status and paths."""
    body = read_run(await read_object(request))
    nodes = [] if body.nodes == "all" else body.nodes
    begun = await request.app[SERVICES].benchmarks.start(body.names or list(NAMES), nodes, body.quick)
    return json_reply(bench_run(begun), 202, {"Location": run_links(begun.id).status})


async def status(request: web.Request) -> web.Response:
    """The progress of a run."""
    return json_reply(bench_run(await request.app[SERVICES].benchmarks.status(_id(request))))


async def cancel(request: web.Request) -> web.Response:
    """Stop a run; outcomes measured so far are kept."""
    return json_reply(bench_run(await request.app[SERVICES].benchmarks.cancel(_id(request))))


def read_run(body: dict[str, Any]) -> BenchRunBody:
    """Raises: BadInput with every fault."""
    requested, faults = checked(BenchRunBody, body)
    faults += [
        Fault("names", f"has {name[:64]!r}, which is none of {', '.join(NAMES)}")
        for name in (requested.names if requested is not None else ())
        if name not in NAMES
    ]
    if requested is None or faults:
        raise bad_input("The benchmark run is not valid", faults)
    return requested


def _id(request: web.Request) -> str:
    name = request.match_info["id"]
    if not is_token(name):
        raise NotFound(f"{excerpt(name, 64)!r} is not an id of a benchmark run")
    return name
