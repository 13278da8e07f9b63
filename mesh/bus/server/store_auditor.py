"""Finds out what the store of a running bus server has lost, and keeps the ledger; `store_audit.py` compares."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mesh.bus.server import store_audit
from mesh.bus.server.bootstrap_client import AdminError
from mesh.bus.server.queue_blocks import Mark
from mesh.bus.server.store_audit import CATCH_UP_S, Expected, Position
from mesh.bus.server.supervisor import BusServer

log = logging.getLogger(__name__)

_WRITE_S = 1.0


#: Reads a stream, with the details of its deleted messages. Raises: AdminError, OSError, ValueError.
ReadStream = Callable[[str], Awaitable[Mapping[str, Any]]]


class StoreAuditor:
    """`look` at each answer of the server; `lost` has the result."""

    def __init__(self, server: BusServer, read_stream: ReadStream, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._read_stream, self._clock = server, read_stream, clock
        self._widened: dict[str, int] | None = None
        """Streams with more gaps than before the start, which the server is asked about; None: not compared yet."""
        self._before: Expected | None = None
        self._due: dict[str, Position] = {}
        """The positions of the ledger at the start, of the streams that have not been compared with it yet."""
        self._unread: set[str] = set()
        """Streams whose line in the log has not been read yet."""
        self._started_at = 0.0
        self._found: dict[str, tuple[int, float]] = {}
        self._writing: asyncio.Task[None] | None = None
        self._marks: dict[str, Mark] = {}
        self._marking: asyncio.Future[dict[str, Mark]] | None = None
        self._written: tuple[dict[str, Position], dict[str, tuple[int, float]]] | None = None

    @property
    def lost(self) -> dict[str, int]:
        """Stream -> messages that were lost within a day."""
        recent = time.time() - store_audit.REPORT_LOSS_S
        return {stream: number for stream, (number, at) in self._found.items() if at > recent}

    async def mark(self) -> None:
        """Note where the files of the queues end; call it just before the server is asked for JSZ. A disk that hangs is
        not waited for."""
        self._marks = {}
        if self._marking is None or self._marking.done():
            self._marking = asyncio.ensure_future(asyncio.to_thread(store_audit.read_marks, self._server.folder))
            if (await asyncio.wait({self._marking}, timeout=_WRITE_S))[0]:
                self._marks = self._marking.result()

    async def look(self, jsz: Mapping[str, Any], restored: Mapping[str, int]) -> None:
        """Compare the answer to JSZ with `streams`, and what the log says of the start, with what should be there."""
        if self._before is not self._server.expected:
            self._before = self._server.expected
            self._due = dict(self._before.ledger)
            self._unread = {*self._before.indexes, *self._before.queues}
            self._started_at, self._found = self._clock(), {**self._found, **self._before.losses}
            self._widened = None
        # A stream with other copies gets from them what this one lacks; the leader compares the copies.
        replicated = _replicated(jsz)
        alone = (self._unread & restored.keys()) - replicated
        found = store_audit.lost_at_start(self._before, {name: restored[name] for name in alone})
        self._unread -= restored.keys()
        now = store_audit.positions(jsz, self._marks)
        tails = store_audit.lost_tails(self._due, now)
        caught_up = self._clock() - self._started_at >= CATCH_UP_S
        waiting = set() if caught_up else tails.keys() & replicated
        self._due = {name: self._due[name] for name in waiting}
        for stream, number in {**tails, **found}.items():
            if stream not in waiting:
                self._note(stream, number)
        if self._widened is None:
            known = {*tails, *found, *self._before.indexes, *replicated}
            widened = store_audit.widened(self._before.ledger, now)
            self._widened = {stream: number for stream, number in widened.items() if stream not in known}
        await self._ask_about_gaps()
        held = {**now, **self._due}
        if (held, self._found) != self._written and (self._writing is None or self._writing.done()):
            self._written = held, dict(self._found)
            folder, name = self._server.folder, self._server.name
            writing = asyncio.to_thread(store_audit.write_ledger, folder, name, *self._written)
            self._writing = asyncio.create_task(writing, name="bus ledger")
            await asyncio.wait({self._writing}, timeout=_WRITE_S)  # no longer: the disk may hang

    async def _ask_about_gaps(self) -> None:
        widened = self._widened or {}
        for stream, number in list(widened.items()):
            with contextlib.suppress(AdminError, OSError, ValueError):  # asked again at the next look
                info = await self._read_stream(stream)
                if "error" not in info:
                    del widened[stream]
                    if store_audit.lost_bytes(info):
                        self._note(stream, number)

    def _note(self, stream: str, number: int) -> None:
        self._found[stream] = (number, time.time())
        log.error("the store in %s has lost %d messages of the stream %s", self._server.folder, number, stream)


def _replicated(jsz: Mapping[str, Any]) -> set[str]:
    """The streams that have other copies."""
    return {
        str(stream["name"])
        for account in jsz.get("account_details") or ()
        for stream in account.get("stream_detail") or ()
        if (stream.get("cluster") or {}).get("replicas")
    }
