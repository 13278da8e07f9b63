"""Shared parts of the tests of the REST bridge: in-memory services, and a client that checks every answer.

`Memory` keeps tasks in a dictionary; tests of the node use the bridge with a real mesh.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from jsonschema import Draft202012Validator

from api.app import build_app
from api.http.keys import ApiSettings
from api.http.serving import Running, serve
from api.services.capacity import CapacityServices
from mesh.benchmarks import BenchRun
from mesh.config import LOCAL
from mesh.errors import BusUnavailable, NotFound, QueztlError, WaitTimeout
from mesh.limits import Limits
from mesh.messages import BlobRef, DeadLetter, Raw, Task, TaskEnd, TaskError, encode
from mesh.tasks import listing
from mesh.tasks.status import of_end
from mesh.tasks.validation import prepare
from mesh.views import (
    Accepted,
    BusView,
    DeadPage,
    NetworkView,
    NodeView,
    QueueView,
    RegistryView,
    SubmitRequest,
    TaskFilter,
    TaskPage,
    TaskSummary,
    TaskView,
)

V = "/api/v1.2"
NODE = NodeView(
    "n1", "box", "up", 2, 0, 0, {}, {"cores": 2, "kinds": [{"kind": "echo", "available": True}]}, {}, "", "",
    "127.0.0.1", True, True, "0.1.0", 0.1,
)  # fmt: skip


class Memory:
    """Services over dictionaries. A submitted task stays queued until the test ends it."""

    def __init__(self) -> None:
        self.views: dict[str, TaskView] = {}
        self.ends: dict[str, TaskEnd] = {}
        self.blobs: dict[str, tuple[BlobRef, bytes]] = {}
        self.dead = DeadLetter(
            task=Task(id="c1-9", kind="echo", payload=Raw(encode({"value": 1}))),
            end=TaskEnd(id="c1-9", kind="echo", state="failed", error=TaskError("crash", "It crashed.")),
            died_at=1.5e9,
        )
        self.refuse: Exception | None = None
        self.accepted, self.changed = asyncio.Event(), asyncio.Event()
        self.registered: tuple[Any, ...] = ()
        self.is_ready = True
        self.scaler: CapacityServices | None = None
        self.largest_piece = 0

    def _look(self, task: str) -> TaskView:
        if task not in self.views:
            raise NotFound(f"there is no task {task}")
        return self.views[task]

    async def accept(self, request: SubmitRequest) -> Accepted:
        if self.refuse:
            raise self.refuse
        task = prepare(request, f"c1-{len(self.views) + 1}", 1.7e9, LOCAL).task
        self.views[task.id] = TaskView(task.id, task.kind, "queued", submitted_at=1.7e9)
        self.accepted.set()
        return Accepted(task.id, task.kind)

    async def status(self, task: str) -> TaskView:
        return self._look("c1-1" if task == "1" else task)

    async def end(self, task: str) -> TaskEnd | None:
        return self.ends.get(task)

    def finish(self, task: str, **fields: Any) -> None:
        given = {"state": "done", "node": "n1", "submitted_at": 1.7e9, "started_at": 1.7e9, "ended_at": 1.7e9 + 1}
        end = TaskEnd(id=task, kind="echo", **(given | fields))
        self.ends[task], self.views[task] = end, of_end(end)
        self.changed.set()

    async def wait(self, task: str, timeout_s: float) -> TaskEnd:
        try:
            async with asyncio.timeout(timeout_s):
                await self.changed.wait()
        except TimeoutError:
            raise WaitTimeout from None
        return self.ends[task]

    async def cancel(self, task: str) -> TaskView:
        if self._look(task).ended_at == 0:
            self.finish(task, state="cancelled")
        return self.views[task]

    async def watch(self, task: str) -> AsyncIterator[TaskView]:
        yield self._look(task)
        await self.changed.wait()
        yield self._look(task)

    async def put_blob(self, source: AsyncIterator[bytes], content_type: str, keep: bool) -> BlobRef:
        data = bytearray()
        async for chunk in source:
            self.largest_piece = max(self.largest_piece, len(chunk))
            data += chunk
        if self.refuse:
            raise self.refuse
        reference = BlobRef(f"b-{'k' if keep else 't'}{len(self.blobs)}", len(data), content_type)
        self.blobs[reference.blob] = reference, bytes(data)
        return reference

    async def open_blob(self, blob: str) -> tuple[BlobRef, AsyncIterator[bytes]]:
        reference, data = self._blob(blob)
        return reference, self._pieces(data)

    async def _pieces(self, data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]
            if self.refuse:
                raise self.refuse

    async def blob_part(self, blob: str, start: int, length: int) -> AsyncIterator[bytes]:
        return self._pieces(self._blob(blob)[1][start : start + length])

    def _blob(self, blob: str) -> tuple[BlobRef, bytes]:
        if blob not in self.blobs:
            raise NotFound(f"there is no blob {blob}")
        return self.blobs[blob]

    async def delete_blob(self, blob: str) -> None:
        if self.refuse:
            raise self.refuse
        self._blob(blob)
        del self.blobs[blob]

    async def network(self) -> NetworkView:
        if self.refuse:
            raise self.refuse
        bus = BusView(("nats://127.0.0.1:4222",), "one server")
        return NetworkView("queztl", "m1", "n1", 3, bus, QueueView(0), (), RegistryView(1, (NODE,)))

    async def register(
        self, name: str, capabilities: dict[str, Any], labels: dict[str, str], node_id: str = ""
    ) -> tuple[str, tuple[str, ...]]:
        self.registered = (name, capabilities, labels, node_id)
        return node_id or "n2", ("nats://127.0.0.1:4222",)

    async def task_page(self, filters: TaskFilter, limit: int, after: str) -> TaskPage:
        listing.start(filters, limit, after)
        fields = TaskSummary.__dataclass_fields__
        tasks = [TaskSummary(**{name: getattr(view, name) for name in fields}) for view in self.views.values()]
        return TaskPage(tuple(tasks[:limit]), "q1" if len(tasks) > limit else "")

    async def dead_page(self, kind: str, limit: int, after: str) -> DeadPage:
        self.dead_asked = kind, limit, after
        return DeadPage((self.dead,), "" if after else "7")

    async def dead_show(self, task: str) -> DeadLetter:
        if task != "c1-9":
            raise NotFound(f"there is no dead letter {task}")
        return self.dead

    async def dead_replay(self, task: str) -> Accepted:
        return await self.accept(SubmitRequest("echo"))

    @property
    def mesh(self) -> Memory:
        """The object that holds the tasks, blobs and dead letters: this one."""
        return self

    @property
    def benchmarks(self) -> MemoryBenchmarks:
        return MemoryBenchmarks(self)

    @property
    def capacity(self) -> CapacityServices:
        if self.scaler is None:
            raise BusUnavailable("there is no scaler here")
        return self.scaler

    def explained(self, error: QueztlError) -> QueztlError:
        return error

    def ready(self) -> tuple[bool, dict[str, str]]:
        return self.is_ready, {"bus": "ok" if self.is_ready else "not reachable"}


class MemoryBenchmarks:
    """A benchmark suite that never runs; `start` raises `Memory.refuse`."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def latest(self) -> dict[str, list[dict[str, Any]]]:
        figure = {"unit": "MH/s", "median": 2.0, "low": 1.0, "high": 3.0, "spread": 1.0, "samples": [1.0, 2.0, 3.0]}
        facts = {"node": "n1", "state": "ok", "at": 1.5e9, "reason": "", "headline": "sha256d", "quick": False}
        return {"crypto_mining": [facts | {"figures": {"sha256d": figure}}]}

    async def start(self, names: Sequence[str], nodes: Sequence[str] | None, quick: bool) -> BenchRun:
        if self._memory.refuse:
            raise self._memory.refuse
        chosen = tuple(nodes or ("n1",))
        return BenchRun(id="r1", names=tuple(names), nodes=chosen, quick=quick, began_at=1.5e9, total=len(names))

    async def status(self, run: str) -> BenchRun:
        if run != "r1":
            raise NotFound(f"there is no benchmark run {run}")
        return BenchRun(id="r1", state="running", names=("crypto_mining",), nodes=("n1",), total=2, done=1, last="x")

    async def cancel(self, run: str) -> BenchRun:
        return msgspec.structs.replace(await self.status(run), state="cancelled", ended_at=1.6e9)


class Client:
    """Calls the bridge and checks that the OpenAPI document describes every answer."""

    def __init__(self, running: Running, document: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self.url, self.port, self.document, self.session = running.url, running.port, document, session
        self.levels = running.levels

    def _operation(self, method: str, path: str) -> dict[str, Any] | None:
        if path in self.document["paths"]:
            return self.document["paths"][path].get(method.lower())
        for template, operations in self.document["paths"].items():
            if re.fullmatch(re.sub(r"\{id\}", "[^/]+", template), path):
                return operations.get(method.lower())
        return None

    async def __call__(self, method: str, path: str, **options: Any) -> tuple[int, Any, Any]:
        """(status, JSON or bytes, headers)"""
        async with self.session.request(method, self.url + path, **options) as answer:
            body: Any = await answer.read()
            is_json = answer.content_type == "application/json"
            if is_json and method != "HEAD":
                body = json.loads(body)
            operation = self._operation(method, path.partition("?")[0])
            schema: dict[str, Any] = {"$ref": "#/components/schemas/ErrorDoc"}
            if operation is not None and method != "HEAD":
                content = operation["responses"][str(answer.status)].get("content", {})
                schema = content.get(answer.content_type, content.get("*/*", {})).get("schema", {})
            if is_json and method != "HEAD":
                Draft202012Validator({"components": self.document["components"], **schema}).validate(body)
            return answer.status, body, answer.headers


@asynccontextmanager
async def bridge(memory: Memory, limits: Limits | None = None) -> AsyncIterator[Client]:
    """A bridge on a free port, and a client for it."""
    settings = ApiSettings(max_blob_bytes=4_000_000, event_ping_s=0.02, limits=limits or Limits())
    running = await serve(build_app(memory, settings), port=0)
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{running.url}{V}/openapi.json") as answer:
            document = await answer.json()
        yield Client(running, document, session)
    await running.close()


def fields(answer: dict[str, Any]) -> set[str]:
    return {fault["field"] for fault in answer["error"]["faults"]}


async def submit(api: Client, **body: Any) -> str:
    status, answer, _ = await api("POST", f"{V}/workload/submit", json={"workload_type": "echo", **body})
    assert status == 202, answer
    return answer["id"]
