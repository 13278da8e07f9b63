"""The blob store: large payloads and results, by reference (claim check).

Blobs are written in the format of NATS object stores, so that `nats object ls` and every other client can read them,
but with pipelined writes and batched direct reads: nats-py's own object store reads 6 to 30 MB/s, one chunk at a time.
There are two buckets: blobs in `blobs` expire after `blob_ttl_s`, those in `blobs-kept` stay until they are deleted;
the id of a kept one begins with `b-k`. No blob is ever in memory as a whole. With a blob cache (`blob_cache.py`) the
bytes of a recently used blob are read from disk, and the bus is only asked whether the blob still exists.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import secrets
import shutil
from collections.abc import AsyncIterator, Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from mesh import subjects
from mesh.bus.blob_cache import BlobCache, CacheWriter
from mesh.bus.errors import ApiError, DamagedBlob
from mesh.bus.jetstream import JetStream
from mesh.bus.pages import read_batch
from mesh.errors import BusUnavailable, NotFound
from mesh.messages import BlobRef
from mesh.subjects import is_token

log = logging.getLogger(__name__)

CHUNK_BYTES = 128 * 1024
#: Chunks in flight at once: 4 MiB in either direction.
WINDOW = 32
#: A failed upload waits this long for chunks in flight before it removes what it has stored.
ABANDON_WITHIN_S = 5.0
#: Time limit for reading one window of chunks.
BATCH_WITHIN_S = 15.0


def new_blob_id(keep: bool = False) -> str:
    """A fresh blob id; `b-k…` when it is kept until deleted."""
    return f"b-{'k' if keep else 't'}{secrets.token_hex(8)}"


def bucket_of(blob: str) -> str:
    """The bucket of a blob id."""
    return subjects.BLOBS_KEPT if blob.startswith("b-k") else subjects.BLOBS


def _stream(bucket: str) -> str:
    return f"OBJ_{bucket}"


def _meta_subject(blob: str) -> str:
    return f"$O.{bucket_of(blob)}.M.{base64.urlsafe_b64encode(blob.encode()).decode()}"


def _chunk_subject(bucket: str, nuid: str) -> str:
    return f"$O.{bucket}.C.{nuid}"


class Objects:
    """The blobs of the mesh. Methods raise BusUnavailable when the bus does not answer."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
        self.blob_cache: BlobCache | None = None
        """Local copies of recently used blobs; None: no cache."""

    async def put(
        self,
        source: bytes | Path | AsyncIterator[bytes],
        content_type: str = "application/octet-stream",
        keep: bool = False,
    ) -> BlobRef:
        """Store the bytes; returns their reference. Raises: StorageFull. A failed upload leaves nothing behind."""
        blob = new_blob_id(keep)
        digest, size = hashlib.sha256(), 0
        upload = _Upload(self._jetstream, bucket_of(blob))
        with self._cache_writer() as cached:
            try:
                async for chunk in _chunks(source):
                    digest.update(chunk)
                    size += len(chunk)
                    await upload.add(chunk)
                    if cached:
                        await cached.add(chunk)
                await upload.finish()
                meta = {
                    "name": blob,
                    "headers": {"Content-Type": [content_type]},
                    "options": {"max_chunk_size": CHUNK_BYTES},
                    "bucket": bucket_of(blob),
                    "nuid": upload.nuid,
                    "size": size,
                    "mtime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
                    "chunks": len(upload.sequences),
                    "digest": _digest_text(digest),
                }
                rollup = {"Nats-Rollup": "sub"}
                await self._jetstream.store(_meta_subject(blob), json.dumps(meta).encode(), headers=rollup, resend=True)
            except BaseException:
                await upload.abandon()
                raise
            if cached:
                await cached.keep(_digest_text(digest))
        return BlobRef(blob=blob, size=size, content_type=content_type)

    @contextmanager
    def _cache_writer(self) -> Generator[CacheWriter | None]:
        if self.blob_cache is None:
            yield None
            return
        with closing(self.blob_cache.write()) as cached:
            yield cached

    async def info(self, blob: str) -> BlobRef:
        """Size and type of a blob. Raises: NotFound."""
        return _reference(blob, await self._meta(blob))

    async def open(self, blob: str) -> AsyncIterator[bytes]:
        """The bytes of a blob, chunk by chunk, checked against their digest.

        Raises: NotFound; DamagedBlob, also when the blob is removed during the read; BusUnavailable.
        """
        return (await self.look(blob))[1]

    async def look(self, blob: str) -> tuple[BlobRef, AsyncIterator[bytes]]:
        """Size and type of a blob, and its bytes as from `open`. Raises: the same."""
        meta = await self._meta(blob)
        return _reference(blob, meta), self._read(blob, meta)

    async def _read(self, blob: str, meta: dict[str, Any]) -> AsyncIterator[bytes]:
        try:
            file = cached.open("rb") if (cached := self._cached(meta)) else None
        except OSError:  # evicted just now
            file = None
        async for chunk in _file_chunks(file) if file else self._download(blob, meta):
            yield chunk

    async def fetch(self, blob: str, target: Path) -> BlobRef:
        """Write a blob into the file `target`, as a copy of its own. Raises: as `open`."""
        meta = await self._meta(blob)
        if (cached := self._cached(meta)) is not None:
            try:
                await asyncio.to_thread(shutil.copyfile, cached, target)
                return _reference(blob, meta)
            except OSError:  # evicted just now
                pass
        with target.open("wb") as file, self._cache_writer() as writer:
            async for chunk in self._download(blob, meta):
                file.write(chunk)
                if writer:
                    await writer.add(chunk)
            if writer:
                await writer.keep(str(meta.get("digest")))
        return _reference(blob, meta)

    def _cached(self, meta: dict[str, Any]) -> Path | None:
        return self.blob_cache.find(str(meta.get("digest")), int(meta.get("size", -1))) if self.blob_cache else None

    async def delete(self, blob: str) -> None:
        """Remove a blob; one that does not exist is no error."""
        try:
            meta = await self._meta(blob)
        except NotFound:
            return
        await _purge(self._jetstream, bucket_of(blob), _chunk_subject(bucket_of(blob), meta["nuid"]))
        await _purge(self._jetstream, bucket_of(blob), _meta_subject(blob))

    async def _meta(self, blob: str) -> dict[str, Any]:
        stored = await self._jetstream.read_last(_stream(bucket_of(blob)), _meta_subject(blob))
        meta: Any = None
        if stored is not None and stored.data:
            try:
                meta = json.loads(stored.data)
            except (ValueError, RecursionError):
                log.warning("the record of blob %s can't be read", blob)
        if not _is_meta(meta) or meta.get("deleted"):
            raise NotFound(f"there is no blob {blob}; upload it (again) and use the new id")
        return meta

    async def _download(self, blob: str, meta: dict[str, Any]) -> AsyncIterator[bytes]:
        bucket = bucket_of(blob)
        stream, subject = _stream(bucket), _chunk_subject(bucket, meta["nuid"])
        digest, start, left = hashlib.sha256(), 1, int(meta.get("chunks", 0))
        while left > 0:
            chunks = await read_batch(self._jetstream, stream, subject, start, min(left, WINDOW), BATCH_WITHIN_S)
            if not chunks:
                raise DamagedBlob(f"blob {blob} is incomplete; upload it again")
            for chunk in chunks:
                digest.update(chunk.data)
                yield chunk.data
            left -= len(chunks)
            start = chunks[-1].sequence + 1
        if _digest_text(digest) != meta.get("digest"):
            raise DamagedBlob(f"blob {blob} is damaged: its digest does not match; upload it again")


def _digest_text(digest: hashlib._Hash) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(digest.digest()).decode()}"


async def _file_chunks(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while chunk := _read_file(file):
            yield chunk


def _is_meta(meta: Any) -> bool:
    """Whether a decoded record describes an object."""
    return (
        isinstance(meta, dict)
        and is_token(str(meta.get("nuid") or ""))
        and all(isinstance(meta.get(count, 0), int) for count in ("size", "chunks"))
        and isinstance(meta.get("headers") or {}, dict)
    )


def _reference(blob: str, meta: dict[str, Any]) -> BlobRef:
    content_type = (meta.get("headers") or {}).get("Content-Type") or ["application/octet-stream"]
    return BlobRef(blob=blob, size=int(meta.get("size", 0)), content_type=content_type[0])


class _Upload:
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
        subject, sequences = _chunk_subject(self._bucket, self.nuid), self.sequences
        sequences[number] = await self._jetstream.store(subject, chunk, msg_id=f"{self.nuid}.{number}", timeout_s=30)

    async def finish(self) -> None:
        """Wait until all chunks are stored, once each and in order. Raises: StorageFull, BusUnavailable."""
        await self._all_stored()
        while self._epoch != self._jetstream.epoch or self.sequences != sorted(self.sequences):
            # The connection broke, so a chunk that was sent again may be behind later ones, or there twice: write all
            # of them anew.
            old, sequences = self.nuid, self.sequences
            self._restart()
            for sequence in sequences:
                stored = await self._jetstream.read_at(_stream(self._bucket), sequence)
                if stored is None:
                    raise DamagedBlob("a part of the upload is gone from the bus; upload it again")
                await self.add(stored.data)
            await self._all_stored()
            await _purge(self._jetstream, self._bucket, _chunk_subject(self._bucket, old))

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
        await _purge(self._jetstream, self._bucket, _chunk_subject(self._bucket, self.nuid))


def _raise_failure(tasks: set[asyncio.Task[None]]) -> None:
    """Raise the first failure. Every task is asked for its own, or asyncio logs that nobody retrieved it."""
    failures = [error for task in tasks if (error := task.exception()) is not None]
    if failures:
        raise failures[0]


async def _purge(jetstream: JetStream, bucket: str, subject: str) -> None:
    try:
        await jetstream.purge(_stream(bucket), subject)
    except (ApiError, BusUnavailable) as error:  # the bucket's lifetime removes it later
        log.debug("could not remove %s: %s", subject, error)


async def _chunks(source: bytes | Path | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`source` in pieces of exactly CHUNK_BYTES; the last one may be shorter."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source)
        for start in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])
    elif isinstance(source, Path):
        async for chunk in _file_chunks(source.open("rb")):
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


def _read_file(file: IO[bytes]) -> bytes:
    return file.read(CHUNK_BYTES)
