"""The background thread of the blocking client: it runs the asynchronous client, other threads hand it their calls."""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any, Self, TypeVar

from mesh.client import Mesh
from mesh.config import LAN, MeshConfig

T = TypeVar("T")
_END: Any = object()


class SyncConnection:
    """Connects with `connect` or `with`; `mesh.sync.SyncMesh` adds what can be done with the connection."""

    def __init__(self, url: str | None = None, *, config: MeshConfig = LAN) -> None:
        self._url, self._config = url, config
        self._mesh: Mesh | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self) -> None:
        """Start the thread and connect to the bus. Raises: as `Mesh.connect`; then no thread is left."""
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
        """Cancel open calls of other threads (they raise CancelledError), disconnect, end the thread."""
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is None:
            return
        if loop is not None and stop is not None and thread.is_alive():
            try:
                loop.call_soon_threadsafe(stop.set)
            except RuntimeError:
                pass  # the loop has just closed by itself
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

    def _call(self, call: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or self._mesh is None:
            call.close()
            raise RuntimeError("use `with SyncMesh() as mesh:` or `mesh.connect()` first")
        if threading.current_thread() is self._thread:
            call.close()
            raise RuntimeError("SyncMesh can't be used inside its own thread; use Mesh in coroutines")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C: nobody waits for the call any more
            raise

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        # One step at a time: a generator can't be closed while an interrupted step is still inside it.
        lock = asyncio.Lock()

        async def step() -> T:
            async with lock:
                return await anext(source, _END)

        async def end() -> None:
            async with lock:
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
        """The asynchronous client, for use in the background thread only. Raises: RuntimeError before `connect`."""
        if self._mesh is None:
            raise RuntimeError("use `with SyncMesh() as mesh:` or `mesh.connect()` first")
        return self._mesh


async def read_in_thread(items: Iterable[T]) -> AsyncIterator[T]:
    """`items`, read in a thread of their own: they may block, or use the mesh themselves."""
    loop, source = asyncio.get_running_loop(), iter(items)
    requests: queue.SimpleQueue[asyncio.Future[Any] | None] = queue.SimpleQueue()

    def settle(future: asyncio.Future[Any], item: Any, error: BaseException | None) -> None:
        if future.done():
            return  # the reader has stopped meanwhile
        if error is None:
            future.set_result(item)
        else:
            future.set_exception(error)

    def read() -> None:
        while (future := requests.get()) is not None:
            item, error = None, None
            try:
                item = next(source, _END)
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(settle, future, item, error)
            except RuntimeError:
                return  # the mesh was closed meanwhile

    # A daemon thread, not the loop's executor: a source that blocks for ever must not keep the program from exiting.
    threading.Thread(target=read, daemon=True, name="queztl payloads").start()
    try:
        while True:
            future = loop.create_future()
            requests.put(future)
            if (item := await future) is _END:
                return
            yield item
    finally:
        requests.put(None)
