"""The route table: every path of the bridge, its handler, and what the OpenAPI document says about it."""

from __future__ import annotations

from api.documents import benchmarks as bench
from api.documents import capacity as scale
from api.documents import network as net
from api.documents import requests as body
from api.documents import tasks
from api.handlers import (
    benchmarks,
    blobs,
    capacity,
    dead_letters,
    events,
    health,
    kinds,
    network,
    results,
    task_list,
    workloads,
)
from api.http.openapi import openapi
from api.http.route import Answer, Query, Route
from mesh.task_states import State
from mesh.tasks import dead_letters as dead
from mesh.tasks import listing
from mesh.views import NetworkView

_STATUS = Answer("The task's status.", tasks.StatusDoc)
_BYTES = "application/octet-stream"
_SECONDS = {"type": "number", "minimum": 0}
_WAIT = Query("wait", "answer when the task has ended, after this many seconds at most", _SECONDS)
_KEEP = Query(
    "keep", "1: keep the blob until it is deleted, not only for a day",
    {"type": "string", "enum": [*blobs.YES, *blobs.NO]},
)  # fmt: skip
_LAST_EVENT = Query(
    "Last-Event-ID", "id of the last event that the reader has: it is not sent again, and the numbers go on",
    {"type": "string"},
)  # fmt: skip
_KEY = Query(
    "Idempotency-Key", "the same as `idempotency_key` in the body: with the same key a task is submitted once",
    {"type": "string", "minLength": 1, "maxLength": 255},
)  # fmt: skip


def _limit(default: int, most: int) -> Query:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return Query("limit", f"how many at most [{default}]", schema)


_KIND = Query("kind", "only those of this kind", {"type": "string", "pattern": "^[A-Za-z0-9_-]{0,64}$"})
_CONDITIONS = (
    Query("Range", "a part of the bytes only: bytes=0-99", {"type": "string"}),
    Query("If-Range", "the entity tag that the part must belong to, else all bytes are sent", {"type": "string"}),
    Query("If-None-Match", "entity tags that the client has: 304 when these are the bytes", {"type": "string"}),
)
_PARTS = {
    206: Answer("The part that Range names.", media="*/*"),
    304: Answer("The client has these bytes.", media=""),
}


def _after(pattern: str) -> Query:
    return Query(
        "after", "the `next` of the page before, with the same filters", {"type": "string", "pattern": pattern}
    )


_TASK_FILTERS = (
    Query("state", "only those in this state", {"type": "string", "enum": [*State, ""]}),
    _KIND,
    Query("node", "only those that this node (id or name) runs or ran", {"type": "string"}),
    Query("min_age", "only those accepted, or ended if they have, at least so many seconds ago", _SECONDS),
)

#: Every path of the bridge. HEAD works wherever GET does.
ROUTE_TABLE: tuple[Route, ...] = (
    Route("POST", "/workload/submit", workloads.submit, "Submit a workload",
          {202: Answer("Accepted: the mesh holds the task durably.", tasks.SubmittedDoc),
           200: Answer("The task has ended (only with ?wait=).", tasks.StatusDoc)},
          errors=(400, 409, 413, 429, 503, 507), query=(_WAIT,), headers=(_KEY,), body=tasks.SubmitBody),
    Route("GET", "/workload/{id}/status", workloads.status, "The status of a task", {200: _STATUS}, errors=(404, 503)),
    Route("GET", "/workload/{id}/result", results.result, "The result of a task: bytes when it is bytes, else JSON",
          {200: Answer("The result, with its own content type.", media="*/*"), **_PARTS},
          errors=(404, 406, 409, 416, 503), headers=_CONDITIONS),
    Route("GET", "/workload/{id}/events", events.events, "The changes of a task, as server-sent events",
          {200: Answer("`state` events, then an `end`, each with a status document.", media="text/event-stream"),
           204: Answer("The reader has the `end` already.", media="")},
          errors=(404, 503), headers=(_LAST_EVENT,)),
    Route("DELETE", "/workload/{id}", workloads.cancel, "Cancel a task", {200: _STATUS}, errors=(404, 503)),
    Route("GET", "/workloads", kinds.kinds, "The kinds of work, with their schemas and the nodes that know them",
          {200: Answer("All kinds.", net.KindsDoc)}, errors=(503,)),
    Route("GET", "/workloads/tasks", task_list.list_tasks, "The tasks of the mesh, page by page",
          {200: Answer("First those that wait or run, then those that ended, each the oldest first.",
                       tasks.TaskListDoc)},
          errors=(400, 503), query=(*_TASK_FILTERS, _limit(listing.DEFAULT_LIMIT, listing.MAX_LIMIT),
                                    _after("^([idqre][0-9]{1,19})?$"))),
    Route("POST", "/blobs", blobs.upload, "Upload data; the answer is a reference for payloads",
          {201: Answer("Stored.", tasks.BlobDoc)}, errors=(400, 413, 415, 503, 507), query=(_KEEP,),
          takes_bytes=True, tags=("blobs",)),
    Route("GET", "/blobs/{id}", blobs.download, "The bytes of a blob",
          {200: Answer("The bytes, with the content type of their upload.", media="*/*"), **_PARTS},
          errors=(404, 416, 503), headers=_CONDITIONS, tags=("blobs",)),
    Route("DELETE", "/blobs/{id}", blobs.delete, "Delete a blob that no task needs any more",
          {204: Answer("It is gone.", media="")}, errors=(404, 409, 503), tags=("blobs",)),
    Route("GET", "/dead", dead_letters.list_dead, "The tasks that used up their attempts, or crashed their workers",
          {200: Answer("Oldest first.", tasks.DeadListDoc)}, errors=(400, 503),
          query=(_KIND, _limit(dead.DEFAULT_LIMIT, dead.MAX_LIMIT), _after("^[0-9]{0,19}$")), tags=("dead",)),
    Route("GET", "/dead/{id}", dead_letters.show, "A dead letter with its payload",
          {200: Answer("The dead letter.", tasks.DeadDoc)}, errors=(404, 503), tags=("dead",)),
    Route("POST", "/dead/{id}/replay", dead_letters.replay, "Submit a dead letter again as a new task",
          {202: Answer("Accepted.", tasks.SubmittedDoc)}, errors=(400, 404, 429, 503, 507), tags=("dead",)),
    Route("GET", "/network/status", network.status, "The mesh: nodes, leader, bus",
          {200: Answer("As this node sees it.", NetworkView)}, errors=(503,), open=True, tags=("network",)),
    Route("POST", "/nodes/register", network.register, "Join without multicast: the node id and the bus URLs",
          {200: Answer("The node id, and where the bus is.", net.RegisteredDoc)}, errors=(400, 413, 429, 503),
          body=body.RegisterBody, open=True, tags=("network",)),
    Route("GET", "/benchmarks/realworld", benchmarks.listed, "The benchmark suite and its last results",
          {200: Answer("Every benchmark.", bench.BenchmarksDoc)}, errors=(503,), tags=("benchmarks",)),
    Route("POST", "/benchmarks/realworld/run", benchmarks.run, "Run benchmarks on this node, on others, or on all",
          {202: Answer("The run has begun.", bench.BenchRunDoc)}, errors=(400, 409, 413, 503), body=body.BenchRunBody,
          tags=("benchmarks",)),
    Route("GET", "/benchmarks/realworld/runs/{id}", benchmarks.status, "The progress of a run",
          {200: Answer("The run.", bench.BenchRunDoc)}, errors=(404, 503), tags=("benchmarks",)),
    Route("DELETE", "/benchmarks/realworld/runs/{id}", benchmarks.cancel, "Stop a run",
          {200: Answer("The run.", bench.BenchRunDoc)}, errors=(404, 409, 503), tags=("benchmarks",)),
    Route("GET", "/autoscaler/status", capacity.status, "The scaler's last measurements and decisions, with reasons",
          {200: Answer("As the leader published it.", scale.AutoscalerDoc)}, errors=(503,), tags=("capacity",)),
    Route("GET", "/autoscaler/forecast", capacity.forecast, "The expected load, and whether it may decide",
          {200: Answer("By pool.", scale.ForecastsDoc)}, errors=(503,), tags=("capacity",)),
    Route("GET", "/autoscaler/decisions", capacity.decisions, "The last decisions, with their reasons",
          {200: Answer("Newest first.", scale.DecisionsDoc)}, errors=(400, 503),
          query=(_limit(capacity.DEFAULT_LIMIT, capacity.MAX_LIMIT),), tags=("capacity",)),
    Route("GET", "/autoscaler/decisions/{id}", capacity.decision, "A decision with its input, and its replay",
          {200: Answer("The decision.", scale.DecisionReplayDoc)}, errors=(404, 503), tags=("capacity",)),
    Route("GET", "/autoscaler/policy", capacity.policy, "The scaler's settings, and their versions",
          {200: Answer("The policy in force.", scale.PolicyHistoryDoc)}, errors=(503,), tags=("capacity",)),
    Route("PUT", "/autoscaler/policy", capacity.set_policy, "Change settings; the previous version is kept",
          {200: Answer("In force from now on.", scale.WholePolicyDoc)}, errors=(400, 409, 413, 503),
          body=body.PolicyBody, tags=("capacity",)),
    Route("POST", "/autoscaler/panic", capacity.panic, "Stop all paid nodes and start none, or allow paid nodes again",
          {200: Answer("Done.", scale.PanicDoc)}, errors=(400, 413, 503), body=body.PanicBody, tags=("capacity",)),
    Route("POST", "/scale/manual", capacity.set_manual, "Hold a number of nodes for some time, whatever the load",
          {202: Answer("The leader follows it.", scale.ManualSetDoc)}, errors=(400, 413, 503), body=body.ManualBody,
          tags=("capacity",)),
    Route("DELETE", "/scale/manual", capacity.clear_manual, "Let the number of nodes follow the load again",
          {200: Answer("Done.", scale.ManualClearedDoc)}, errors=(503,), tags=("capacity",)),
    Route("GET", "/cost", capacity.cost, "What costs money now, today and this month",
          {200: Answer("As the leader last counted.", scale.CostDoc)}, errors=(503,), tags=("capacity",)),
    Route("GET", "/healthz", health.healthz, "Whether the process answers",
          {200: Answer("It does.", net.HealthDoc)}, open=True, tags=("health",)),
    Route("GET", "/readyz", health.readyz, "Whether work can be submitted at this node",
          {200: Answer("Yes.", net.ReadyDoc), 503: Answer("No, and why.", net.ReadyDoc)},
          open=True, tags=("health",)),
    Route("GET", "/openapi.json", openapi, "This document",
          {200: Answer("OpenAPI 3.1.")}, open=True, tags=("health",)),
    Route("GET", "/", health.root, "A page for people", {200: Answer("A page.", media="text/html")},
          tags=("health",)),
)  # fmt: skip
