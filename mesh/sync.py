"""The synchronous twin of `mesh.client.Mesh`, for scripts:

    with SyncMesh() as mesh:
        print(mesh.submit("crypto_mining", {"seconds": 1}))
        handle = mesh.start("echo", {"value": 1, "sleep_s": 5})
        print(mesh.status(handle.id).state, handle.result())
        for item in mesh.map("echo", ({"value": n} for n in range(1000))):
            print(item.index, item.result)

One background thread runs the connection; any number of threads may call. Ctrl-C ends the call it hits, and the
mesh object can be used on. Errors are the same as those of `Mesh`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mesh.client import Mesh, TaskHandle
from mesh.config import LAN, MeshConfig
from mesh.kinds.table import WorkloadType
from mesh.messages import BlobRef, DeadLetter, NodeRecord, TaskEnd
from mesh.tasks.mapping import MapItem
from mesh.views import Accepted, SubmitRequest, TaskView

__all__ = ["SyncMesh", "SyncTaskHandle", "WorkloadType"]

T = TypeVar("T")
_END: Any = object()


@dataclass(frozen=True)
class SyncTaskHandle:
    """A task the mesh has accepted."""

    id: str
    kind: str
    mesh: SyncMesh

    def result(self, timeout_s: float | None = None) -> Any:
        """Its result, once it has one. Raises: TaskFailed, WaitTimeout."""
        return self.mesh.value(self.mesh.wait(self.id, timeout_s))

    def end(self, timeout_s: float | None = None) -> TaskEnd:
        """How it ended. Raises: WaitTimeout."""
        return self.mesh.wait(self.id, timeout_s)

    def cancel(self) -> TaskView:
        """End it, wherever it is."""
        return self.mesh.cancel(self.id)


class SyncMesh:
    """A script's way into a mesh; see `Mesh` for what each method promises and raises.

    `url`: nats://… of a bus server or http://… of any node's API; None: QUEZTL_URL, else the local node.
    """

    def __init__(self, url: str | None = None, *, config: MeshConfig = LAN) -> None:
        self._url, self._config = url, config
        self._mesh: Mesh | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    # --- its own life -------------------------------------------------------------------------------
    def __enter__(self) -> SyncMesh:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Start the thread and reach the bus. Raises: BusUnavailable, BadInput; then no thread is left."""
        if self._thread is not None:
            return
        connected: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._main, args=(connected,), name="queztl mesh", daemon=True)
        self._thread.start()
        try:
            connected.result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End open calls of other threads (they raise CancelledError), disconnect, end the thread."""
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is None:
            return
        if loop is not None and stop is not None and thread.is_alive():
            try:
                loop.call_soon_threadsafe(stop.set)
            except RuntimeError:
                pass  # it is closing by itself
        thread.join()
        self._thread = self._loop = self._mesh = None

    def _main(self, connected: concurrent.futures.Future[None]) -> None:
        async def live() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            async with Mesh(self._url, config=self._config) as self._mesh:
                connected.set_result(None)
                await self._stop.wait()

        try:
            asyncio.run(live())
        except BaseException as error:
            if not connected.done():
                connected.set_exception(error)
            else:
                raise

    def _call(self, made: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or self._mesh is None:
            made.close()
            raise RuntimeError("use `with SyncMesh() as mesh:` or `mesh.connect()` first")
        if threading.current_thread() is self._thread:
            made.close()
            raise RuntimeError("SyncMesh can't be used inside its own thread; use Mesh in coroutines")
        future = asyncio.run_coroutine_threadsafe(made, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C: nobody waits for it any more
            raise

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        # One step at a time: an interrupted one must have left the generator before it can be closed.
        turn = asyncio.Lock()

        async def step() -> T:
            async with turn:
                return await anext(source, _END)

        async def end() -> None:
            async with turn:
                close = getattr(source, "aclose", None)
                if close is not None:
                    await close()

        try:
            while (item := self._call(step())) is not _END:
                yield item
        finally:
            if self._loop is not None:
                self._call(end())

    @property
    def mesh(self) -> Mesh:
        """The asynchronous mesh, to be used in its own thread only. Raises: RuntimeError before `connect`."""
        if self._mesh is None:
            raise RuntimeError("use `with SyncMesh() as mesh:` or `mesh.connect()` first")
        return self._mesh

    # --- submitting ---------------------------------------------------------------------------------
    def accept(self, request: SubmitRequest) -> Accepted:
        """Check a wish and make it durable."""
        return self._call(self.mesh.accept(request))

    def start(self, kind: str, payload: Any = None, **options: Any) -> SyncTaskHandle:
        """Submit without waiting for the result."""
        handle: TaskHandle = self._call(self.mesh.start(kind, payload, **options))
        return SyncTaskHandle(handle.id, handle.kind, self)

    def submit(self, kind: str, payload: Any = None, *, wait_s: float | None = None, **options: Any) -> Any:
        """Submit and return the result: a plain value, or bytes."""
        return self._call(self.mesh.submit(kind, payload, wait_s=wait_s, **options))

    def submit_workload(
        self, workload_type: WorkloadType | str, payload: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """`submit` under the names REST uses."""
        return self._call(self.mesh.submit_workload(workload_type, payload, **options))

    def map(
        self, kind: str, payloads: Iterable[Any], *, ordered: bool = True, window: int = 256, **options: Any
    ) -> Iterator[MapItem]:
        """One task a payload; items come in order, or as they end. `payloads` may use this mesh too."""
        return self._iterate(self.mesh.map(kind, _fed(payloads), ordered=ordered, window=window, **options))

    # --- looking ------------------------------------------------------------------------------------
    def status(self, task: str) -> TaskView:
        """All that is known of a task."""
        return self._call(self.mesh.status(task))

    def end(self, task: str) -> TaskEnd | None:
        """How a task ended; None while it has not."""
        return self._call(self.mesh.end(task))

    def wait(self, task: str, timeout_s: float | None = None) -> TaskEnd:
        """How a task ended, as soon as it has."""
        return self._call(self.mesh.wait(task, timeout_s))

    def result(self, task: str, timeout_s: float | None = None) -> Any:
        """A task's result, anybody's task."""
        return self._call(self.mesh.result(task, timeout_s))

    def value(self, end: TaskEnd) -> Any:
        """The value of an end: plain data, or bytes."""
        return self._call(self.mesh.value(end))

    def watch(self, task: str) -> Iterator[TaskView]:
        """Each change of a task's state, until it has ended."""
        return self._iterate(self.mesh.watch(task))

    def cancel(self, task: str) -> TaskView:
        """End a task wherever it is; one that has ended stays as it is."""
        return self._call(self.mesh.cancel(task))

    def nodes(self) -> list[NodeRecord]:
        """Every node's record."""
        return self._call(self.mesh.nodes())

    # --- blobs --------------------------------------------------------------------------------------
    def put_blob(
        self, source: bytes | Path, content_type: str = "application/octet-stream", keep: bool = False
    ) -> BlobRef:
        """Upload; the reference goes into payloads as {"blob": id}."""
        return self._call(self.mesh.put_blob(source, content_type, keep))

    def get_blob(self, blob: str) -> bytes:
        """A blob's bytes, all in memory. Raises: NotFound."""

        async def get() -> bytes:
            _, source = await self.mesh.open_blob(blob)
            return b"".join([chunk async for chunk in source])

        return self._call(get())

    def save_blob(self, blob: str, target: Path) -> BlobRef:
        """Write a blob into the file `target`, chunk by chunk. Raises: NotFound, OSError."""
        return self._call(self.mesh.bus.objects.fetch(blob, target))

    # --- dead letters -------------------------------------------------------------------------------
    def dead_list(self, kind: str = "") -> list[DeadLetter]:
        """The tasks that used up their attempts or are poison."""
        return self._call(self.mesh.dead_list(kind))

    def dead_show(self, task: str) -> DeadLetter:
        """One of them."""
        return self._call(self.mesh.dead_show(task))

    def dead_replay(self, task: str) -> Accepted:
        """Submit it again, as a new task; the dead letter goes."""
        return self._call(self.mesh.dead_replay(task))


async def _fed(payloads: Iterable[Any]) -> AsyncIterator[Any]:
    """`payloads`, read in a thread of their own: they may block, or use the mesh themselves."""
    loop, source = asyncio.get_running_loop(), iter(payloads)
    wanted: queue.SimpleQueue[asyncio.Future[Any] | None] = queue.SimpleQueue()

    def settle(future: asyncio.Future[Any], item: Any, error: BaseException | None) -> None:
        if future.done():
            return  # the map was ended meanwhile
        if error is None:
            future.set_result(item)
        else:
            future.set_exception(error)

    def feed() -> None:
        while (future := wanted.get()) is not None:
            item, error = None, None
            try:
                item = next(source, _END)
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(settle, future, item, error)
            except RuntimeError:
                return  # the mesh was closed meanwhile

    # A daemon, not the loop's executor: one that blocks for ever must not keep the program from ending.
    threading.Thread(target=feed, daemon=True, name="queztl payloads").start()
    try:
        while True:
            future = loop.create_future()
            wanted.put(future)
            if (item := await future) is _END:
                return
            yield item
    finally:
        wanted.put(None)
