"""The route table: every path of the bridge, its handler and what the OpenAPI document says about it."""

from __future__ import annotations

from api.documents import capacity as scale
from api.documents import schema as doc
from api.handlers import benchmarks, blobs, capacity, dead_letters, events, health, kinds, network, results, workloads
from api.http.openapi import openapi
from api.http.route import Answer, Query, Route

_STATUS = Answer("The task's status.", doc.StatusDoc)
_BYTES = "application/octet-stream"
_SECONDS = {"type": "number", "minimum": 0}
_WAIT = Query("wait", "answer when the task has ended, after this many seconds at most", _SECONDS)
_KEEP = Query("keep", "1: kept until deleted, not only for a day", {"type": "string"})
_LIMIT = Query(
    "limit", f"so many at most [{capacity.LISTED}]",
    {"type": "integer", "minimum": 1, "maximum": capacity.LISTED_MOST},
)  # fmt: skip
_KIND = Query("kind", "only those of this kind", {"type": "string"})

#: Every path of the bridge. HEAD works wherever GET does.
ROUTE_TABLE: tuple[Route, ...] = (
    Route("POST", "/workload/submit", workloads.submit, "Submit a workload",
          {202: Answer("Accepted: the mesh holds it durably.", doc.SubmittedDoc),
           200: Answer("It has ended (only with ?wait=).", doc.StatusDoc)},
          errors=(400, 409, 413, 503, 507), query=(_WAIT,), body=doc.SubmitBody),
    Route("GET", "/workload/{id}/status", workloads.status, "A task's status", {200: _STATUS}, errors=(404, 503)),
    Route("GET", "/workload/{id}/result", results.result, "A task's result: bytes when it is bytes, else JSON",
          {200: Answer("The result, with its own content type.", media="*/*")}, errors=(404, 406, 409, 503)),
    Route("GET", "/workload/{id}/events", events.events, "A task's changes, as server-sent events",
          {200: Answer("`state` events and an `end`, each with a status document.", media="text/event-stream")},
          errors=(404, 503)),
    Route("DELETE", "/workload/{id}", workloads.cancel, "Cancel a task", {200: _STATUS}, errors=(404, 503)),
    Route("GET", "/workloads", kinds.kinds, "The kinds of work, with their schemas and the nodes that know them",
          {200: Answer("All kinds.", doc.KindsDoc)}, errors=(503,)),
    Route("POST", "/blobs", blobs.upload, "Upload data; the answer is a reference that payloads take",
          {201: Answer("Stored.", doc.BlobDoc)}, errors=(400, 413, 415, 503, 507), query=(_KEEP,),
          takes_bytes=True, tags=("blobs",)),
    Route("GET", "/blobs/{id}", blobs.download, "The bytes of a blob",
          {200: Answer("The bytes, with the content type they were uploaded with.", media=_BYTES)},
          errors=(404, 503), tags=("blobs",)),
    Route("GET", "/dead", dead_letters.list_dead, "The tasks that used up their attempts or are poison",
          {200: Answer("Oldest first.", doc.DeadListDoc)}, errors=(400, 503), query=(_KIND,), tags=("dead",)),
    Route("GET", "/dead/{id}", dead_letters.show, "One of them, with its payload",
          {200: Answer("The dead letter.", doc.DeadDoc)}, errors=(404, 503), tags=("dead",)),
    Route("POST", "/dead/{id}/replay", dead_letters.replay, "Submit it again, as a new task",
          {202: Answer("Accepted.", doc.SubmittedDoc)}, errors=(400, 404, 503, 507), tags=("dead",)),
    Route("GET", "/network/status", network.status, "The mesh: nodes, master, bus",
          {200: Answer("As this node sees it.", doc.NetworkDoc)}, errors=(503,), open=True, tags=("network",)),
    Route("POST", "/nodes/register", network.register, "Join without multicast: the node id and the bus URLs",
          {200: Answer("Who it is, and where the bus is.", doc.RegisteredDoc)}, errors=(400, 413, 503),
          body=doc.RegisterBody, open=True, tags=("network",)),
    Route("GET", "/benchmarks/realworld", benchmarks.listed, "The benchmark suite and its last results",
          {200: Answer("Every benchmark.", doc.BenchmarksDoc)}, errors=(503,), tags=("benchmarks",)),
    Route("POST", "/benchmarks/realworld/run", benchmarks.run, "Run benchmarks on this node, on others, or on all",
          {202: Answer("It has begun.", doc.BenchRunDoc)}, errors=(400, 409, 413, 503), body=doc.BenchRunBody,
          tags=("benchmarks",)),
    Route("GET", "/benchmarks/realworld/runs/{id}", benchmarks.status, "Where a run is",
          {200: Answer("The run.", doc.BenchRunDoc)}, errors=(404, 503), tags=("benchmarks",)),
    Route("DELETE", "/benchmarks/realworld/runs/{id}", benchmarks.cancel, "Stop a run",
          {200: Answer("The run.", doc.BenchRunDoc)}, errors=(404, 409, 503), tags=("benchmarks",)),
    Route("GET", "/autoscaler/status", capacity.status, "What the scaler last saw and decided, and why",
          {200: Answer("As the master wrote it.", scale.AutoscalerDoc)}, errors=(503,), tags=("capacity",)),
    Route("GET", "/autoscaler/forecast", capacity.forecast, "The load to come, and whether it may decide",
          {200: Answer("Pool by pool.", scale.ForecastsDoc)}, errors=(503,), tags=("capacity",)),
    Route("GET", "/autoscaler/decisions", capacity.decisions, "The last decisions, with their reasons",
          {200: Answer("The newest first.", scale.DecisionsDoc)}, errors=(400, 503), query=(_LIMIT,),
          tags=("capacity",)),
    Route("GET", "/autoscaler/decisions/{id}", capacity.decision, "One decision, made again from what it was made from",
          {200: Answer("The decision.", scale.DecisionReplayDoc)}, errors=(404, 503), tags=("capacity",)),
    Route("GET", "/autoscaler/policy", capacity.policy, "The scaler's settings, and their versions",
          {200: Answer("The policy in force.", scale.PolicyHistoryDoc)}, errors=(503,), tags=("capacity",)),
    Route("PUT", "/autoscaler/policy", capacity.set_policy, "Change settings; the version before is kept",
          {200: Answer("In force from now on.", scale.WholePolicyDoc)}, errors=(400, 409, 413, 503),
          body=scale.PolicyBody, tags=("capacity",)),
    Route("POST", "/autoscaler/panic", capacity.panic, "Stop everything paid and start nothing paid, or allow it again",
          {200: Answer("Done.", scale.PanicDoc)}, errors=(400, 413, 503), body=scale.PanicBody, tags=("capacity",)),
    Route("POST", "/scale/manual", capacity.set_manual, "So many nodes for some time, whatever is seen",
          {202: Answer("The master follows it.", scale.ManualSetDoc)}, errors=(400, 413, 503), body=scale.ManualBody,
          tags=("capacity",)),
    Route("DELETE", "/scale/manual", capacity.clear_manual, "Back to what is seen and expected",
          {200: Answer("Done.", scale.ManualClearedDoc)}, errors=(503,), tags=("capacity",)),
    Route("GET", "/cost", capacity.cost, "What costs money this minute, this day and this month",
          {200: Answer("As the master last counted.", scale.CostDoc)}, errors=(503,), tags=("capacity",)),
    Route("GET", "/healthz", health.healthz, "Whether the process answers",
          {200: Answer("It does.", doc.HealthDoc)}, open=True, tags=("health",)),
    Route("GET", "/readyz", health.readyz, "Whether work can be submitted here",
          {200: Answer("Yes.", doc.ReadyDoc), 503: Answer("No, and why.", doc.ReadyDoc)},
          open=True, tags=("health",)),
    Route("GET", "/openapi.json", openapi, "This document",
          {200: Answer("OpenAPI 3.1.")}, open=True, tags=("health",)),
    Route("GET", "/", health.root, "What this is, for people", {200: Answer("A page.", media="text/html")},
          tags=("health",)),
)  # fmt: skip
