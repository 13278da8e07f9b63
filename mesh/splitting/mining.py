"""Distributes a nonce search over the mesh: one task per part of the range; the first solution ends the search.

When a node dies, the mesh runs its task on another node. The client checks every result with hashlib, so a faulty or
malicious node can't end a search.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mesh.errors import TaskFailed
from mesh.splitting.nonces import KIND, Part, Range, SearchResult, checked, is_right

if TYPE_CHECKING:
    from mesh.client import Mesh, TaskHandle
    from mesh.kinds.crypto_mining import CryptoMiningPayload

#: Open tasks per node, so that no node waits for the client; each task uses all cores of its node.
OPEN_PER_NODE = 2

OnProgress = Callable[[SearchResult, list[str]], None]


async def mine(
    mesh: Mesh,
    payload: dict[str, Any] | None = None,
    *,
    on_progress: OnProgress | None = None,
    requires: dict[str, Any] | None = None,
    urgency: str = "normal",
    timeout_s: float = 0.0,
    max_attempts: int | None = None,
    delay_s: float = 0.0,
    expires_s: float = 0.0,
    origin: str = "",
) -> dict[str, Any]:
    """Search a range of nonces on all nodes of the mesh.

    `payload`: fields of crypto_mining; without `nonce_start` and `nonce_count` all 2**32 nonces are searched.
    `on_progress(result so far, ids of the open tasks)` is called after every change. The other options apply to each
    task, see `mesh.client.Mesh`.
    Returns {found, nonce, hash_hex, best_nonce, best_hash_hex, hashes, parts, seconds, hash_rate_hs (hashes per
    second), nodes (ids)}. When several nonces meet the target, any of them may be found first.

    Raises: BadInput; TaskFailed when a task fails permanently or its result is wrong; as `Mesh.start`.
    """
    whole = checked(payload)
    options = {
        "requires": requires, "urgency": urgency, "timeout_s": timeout_s, "max_attempts": max_attempts,
        "delay_s": delay_s, "expires_s": expires_s, "origin": origin,
    }  # fmt: skip
    search = _Search(mesh, payload or {}, options, Range(*whole.nonces), on_progress)
    started = time.perf_counter()
    try:
        await search.run(whole)
    finally:
        await search.stop()
    result, seconds = search.result, time.perf_counter() - started
    return {
        "found": result.nonce is not None,
        "nonce": result.nonce,
        "hash_hex": result.hash_hex,
        "best_nonce": result.best[1],
        "best_hash_hex": result.best[0],
        "hashes": result.hashes,
        "parts": result.parts,
        "seconds": round(seconds, 3),
        "hash_rate_hs": round(result.hashes / seconds, 1),
        "nodes": sorted(search.nodes),
    }


class _Search:
    def __init__(
        self, mesh: Mesh, payload: dict[str, Any], options: dict[str, Any], left: Range, on_progress: OnProgress | None
    ) -> None:
        self._mesh, self._payload, self._options, self._left = mesh, payload, options, left
        self.result, self._on_progress = SearchResult(left.end - left.next), on_progress
        self.nodes: set[str] = set()
        self._open: dict[asyncio.Task[dict[str, Any]], tuple[TaskHandle, Part]] = {}

    async def run(self, whole: CryptoMiningPayload) -> None:
        """Run until a nonce is found or every part is done."""
        while self.result.nonce is None:
            await self._fill()
            if not self._open:
                return
            done, _ = await asyncio.wait(self._open, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                handle, part = self._open.pop(task)
                result = task.result()
                if not is_right(whole, result, part):
                    reason = f"its result for the nonces from {part.start} on is wrong"
                    raise TaskFailed(f"task {handle.id}: {reason}", handle.id, "done", reason)
                self.result.add(result)
                self._left.rate_hs = result["hash_rate_hs"]
            self._report()

    async def stop(self) -> None:
        """Cancel the open tasks, here and on the nodes."""
        handles = [handle for handle, _ in self._open.values()]
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._open.clear()
        await asyncio.gather(*(handle.cancel() for handle in handles), return_exceptions=True)

    async def _fill(self) -> None:
        nodes = [node for node in await self._mesh.nodes() if node.state == "up"]
        while len(self._open) < OPEN_PER_NODE * max(1, len(nodes)) and (part := self._left.take()) is not None:
            payload = {**self._payload, "nonce_start": part.start, "nonce_count": part.count}
            handle = await self._mesh.start(KIND, payload, **self._options)
            self._open[asyncio.create_task(self._result(handle))] = handle, part
            self._report()

    async def _result(self, handle: TaskHandle) -> dict[str, Any]:
        end = await handle.end()
        self.nodes.add(end.node)
        return dict(await self._mesh.value(end))

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self.result, [handle.id for handle, _ in self._open.values()])
