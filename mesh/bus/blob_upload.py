"""The upload of a blob: its chunks, several in flight, stored once each and in order."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import IO

from mesh.bus import reserved
from mesh.bus.blob_ranges import message_id
from mesh.bus.errors import ApiError, DamagedBlob
from mesh.bus.jetstream import JetStream
from mesh.errors import BusUnavailable

log = logging.getLogger(__name__)

CHUNK_BYTES = 128 * 1024
#: Chunks in flight at once: 4 MiB in either direction.
WINDOW = 32
#: A failed upload waits this long for chunks in flight before it removes what it has stored.
ABANDON_WITHIN_S = 5.0


def stream_of(bucket: str) -> str:
    """The stream of a bucket."""
    return f"OBJ_{bucket}"


class Upload:
    """The chunks of one object, up to WINDOW in flight; readers take them in the order of the stream."""

    def __init__(self, jetstream: JetStream, bucket: str) -> None:
        self._jetstream, self._bucket = jetstream, bucket
        self._in_flight: set[asyncio.Task[None]] = set()
        self.sequences: list[int] = []
        """Stream sequence of each chunk, in the order of the object; 0 while it is in flight."""
        self.nuid, self._epoch = secrets.token_hex(11), jetstream.epoch

    def _restart(self) -> None:
        self.sequences = []
        self.nuid, self._epoch = secrets.token_hex(11), self._jetstream.epoch

    async def add(self, chunk: bytes) -> None:
        """Send one more chunk. Raises: StorageFull, BusUnavailable."""
        if len(self._in_flight) >= WINDOW:
            done, self._in_flight = await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            _raise_failure(done)
        self.sequences.append(0)
        self._in_flight.add(asyncio.create_task(self._store(len(self.sequences) - 1, chunk), name="blob chunk"))

    async def _store(self, number: int, chunk: bytes) -> None:
        subject, sequences = reserved.chunk_subject(self._bucket, self.nuid), self.sequences
        sequences[number] = await self._jetstream.store(
            subject, chunk, msg_id=message_id(self.nuid, number), timeout_s=30
        )

    async def finish(self) -> None:
        """Wait until all chunks are stored, once each and in order. Raises: StorageFull, BusUnavailable."""
        await self._all_stored()
        while self._epoch != self._jetstream.epoch or self.sequences != sorted(self.sequences):
            # The connection broke, so a chunk that was sent again may be behind later ones, or there twice: write all
            # of them anew.
            old, sequences = self.nuid, self.sequences
            self._restart()
            for sequence in sequences:
                stored = await self._jetstream.read_at(stream_of(self._bucket), sequence)
                if stored is None:
                    raise DamagedBlob("a part of the upload is gone from the bus; upload it again")
                await self.add(stored.data)
            await self._all_stored()
            await purge(self._jetstream, self._bucket, reserved.chunk_subject(self._bucket, old))

    async def _all_stored(self) -> None:
        if self._in_flight:
            await asyncio.wait(self._in_flight)  # all, also after a failure: a purge must not overtake a chunk
        in_flight, self._in_flight = self._in_flight, set()
        _raise_failure(in_flight)

    async def abandon(self) -> None:
        """Remove what was stored; what can't be removed expires with the bucket's lifetime at the latest."""
        if self._in_flight:
            # A purge may overtake chunks that were sent and are not stored yet.
            _, late = await asyncio.wait(self._in_flight, timeout=ABANDON_WITHIN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*self._in_flight, return_exceptions=True)
        await purge(self._jetstream, self._bucket, reserved.chunk_subject(self._bucket, self.nuid))


def _raise_failure(tasks: set[asyncio.Task[None]]) -> None:
    """Raise the first failure. The exception of every task is read: asyncio logs those that nobody retrieves."""
    failures = [error for task in tasks if (error := task.exception()) is not None]
    if failures:
        raise failures[0]


async def purge(jetstream: JetStream, bucket: str, subject: str) -> None:
    """Remove the messages on a subject; what can't be removed now expires."""
    try:
        await jetstream.purge(stream_of(bucket), subject)
    except (ApiError, BusUnavailable) as error:  # the bucket's lifetime removes it later
        log.debug("could not remove %s: %s", subject, error)


async def chunks_of(source: bytes | Path | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`source` in pieces of exactly CHUNK_BYTES; the last one may be shorter."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source)
        for start in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])
    elif isinstance(source, Path):
        async for chunk in file_chunks(source.open("rb")):
            yield chunk
    else:
        held = bytearray()
        async for piece in source:
            held += piece
            while len(held) >= CHUNK_BYTES:
                yield bytes(held[:CHUNK_BYTES])
                del held[:CHUNK_BYTES]
        if held:
            yield bytes(held)


async def file_chunks(file: IO[bytes]) -> AsyncGenerator[bytes]:
    """What is left of a file, in chunks; it is closed at the end."""
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
