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
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from mesh import subjects
from mesh.bus import reserved
from mesh.bus.blob_cache import BlobCache, CacheWriter
from mesh.bus.blob_ranges import Place, find_chunk, place_of
from mesh.bus.blob_upload import (
    CHUNK_BYTES,
    WINDOW,
    Upload,
    chunks_of,
    file_chunks,
    purge,
    stream_of,
)
from mesh.bus.errors import DamagedBlob
from mesh.bus.jetstream import JetStream
from mesh.bus.pages import read_batch
from mesh.errors import NotFound
from mesh.messages import BlobRef
from mesh.subjects import is_token

log = logging.getLogger(__name__)

#: Time limit for reading one window of chunks.
BATCH_WITHIN_S = 15.0


def new_blob_id(keep: bool = False) -> str:
    """A fresh blob id; `b-k…` when it is kept until deleted."""
    return f"b-{'k' if keep else 't'}{secrets.token_hex(8)}"


def bucket_of(blob: str) -> str:
    """The bucket of a blob id."""
    return subjects.BLOBS_KEPT if blob.startswith("b-k") else subjects.BLOBS


def _meta_subject(blob: str) -> str:
    return reserved.metadata_subject(bucket_of(blob), base64.urlsafe_b64encode(blob.encode()).decode())


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
        upload = Upload(self._jetstream, bucket_of(blob))
        with self._cache_writer() as cached:
            try:
                async for chunk in chunks_of(source):
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
                await self._jetstream.store(
                    _meta_subject(blob), json.dumps(meta).encode(), headers=reserved.ROLLUP, resend=True
                )
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

    async def part(self, blob: str, start: int, length: int) -> AsyncIterator[bytes]:
        """`length` bytes of a blob, from byte `start` on. A part can't be checked against the digest of the whole.

        The chunks before it are not read. Raises: NotFound; DamagedBlob; BusUnavailable.
        """
        return self._read_part(blob, await self._meta(blob), start, length)

    async def _read_part(self, blob: str, meta: dict[str, Any], start: int, length: int) -> AsyncIterator[bytes]:
        if (file := self._open_cached(meta)) is not None:
            file.seek(start)
            chunks = file_chunks(file)
        else:
            chunks = self._chunks_from(blob, meta, start // CHUNK_BYTES)
            start %= CHUNK_BYTES
            first = await anext(chunks, b"")
            yield first[start : start + length]
            length -= min(length, len(first) - start)
        while length > 0:
            chunk = await anext(chunks, b"")
            if not chunk:
                raise DamagedBlob(f"blob {blob} is incomplete; upload it again")
            yield chunk[:length]
            length -= len(chunk)
        await chunks.aclose()

    def _open_cached(self, meta: dict[str, Any]) -> IO[bytes] | None:
        try:
            return cached.open("rb") if (cached := self._cached(meta)) else None
        except OSError:  # evicted just now
            return None

    async def _read(self, blob: str, meta: dict[str, Any]) -> AsyncIterator[bytes]:
        file = self._open_cached(meta)
        async for chunk in file_chunks(file) if file else self._download(blob, meta):
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
        await purge(self._jetstream, bucket_of(blob), reserved.chunk_subject(bucket_of(blob), meta["nuid"]))
        await purge(self._jetstream, bucket_of(blob), _meta_subject(blob))

    async def _meta(self, blob: str) -> dict[str, Any]:
        stored = await self._jetstream.read_last(stream_of(bucket_of(blob)), _meta_subject(blob))
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
        digest = hashlib.sha256()
        async for chunk in self._chunks_from(blob, meta, 0):
            digest.update(chunk)
            yield chunk
        if _digest_text(digest) != meta.get("digest"):
            raise DamagedBlob(f"blob {blob} is damaged: its digest does not match; upload it again")

    async def _chunks_from(self, blob: str, meta: dict[str, Any], number: int) -> AsyncGenerator[bytes]:
        """The chunks from `number` on. Raises: DamagedBlob."""
        bucket, count = bucket_of(blob), int(meta.get("chunks", 0))
        stream, subject = stream_of(bucket), reserved.chunk_subject(bucket, meta["nuid"])
        first = Place(1, 0)
        if number:
            first = await self._place_of(stream, subject, number, count) or first
        start = first.sequence
        left = count - first.number
        while left > 0:
            chunks = await read_batch(self._jetstream, stream, subject, start, min(left, WINDOW), BATCH_WITHIN_S)
            if not chunks:
                raise DamagedBlob(f"blob {blob} is incomplete; upload it again")
            for chunk in chunks:
                place = place_of(chunk, meta["nuid"])
                if place is not None and place.number != count - left:
                    raise DamagedBlob(f"blob {blob} is damaged or incomplete; upload it again")
                if left <= count - number:
                    yield chunk.data
                left -= 1
            start = chunks[-1].sequence + 1

    async def _place_of(self, stream: str, subject: str, number: int, count: int) -> Place | None:
        """Where chunk `number` is; None when the chunks do not say their numbers. Raises: DamagedBlob."""
        nuid = subject.rpartition(".")[2]

        async def probe(sequence: int) -> Place:
            chunks = await read_batch(self._jetstream, stream, subject, sequence, 1, BATCH_WITHIN_S)
            place = place_of(chunks[0], nuid) if chunks else None
            if place is None:
                raise DamagedBlob("a blob is incomplete; upload it again")
            return place

        last = await self._jetstream.read_last(stream, subject)
        high = place_of(last, nuid) if last is not None else None
        if high is None or high.number != count - 1:
            return None
        return await find_chunk(probe, number, await probe(1), high)


def _digest_text(digest: hashlib._Hash) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(digest.digest()).decode()}"


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
