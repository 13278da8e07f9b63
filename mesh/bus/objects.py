"""The blob store: large payloads and results, by reference (claim check).

Written in the format of NATS object stores, so that `nats object ls` and every other client can read it, but
with pipelined writes and batched direct reads: nats-py's own object store reads 6 to 30 MB/s, one chunk at a
time. Two buckets: objects in `blobs` go after `blob_ttl_s`; those in `blobs-kept` stay until deleted. An id says
which one: `b-k…` is kept. Nothing is ever whole in memory. What a node has had in hand lately it has near (`near.py`):
only whether the blob is still there is asked then.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mesh import subjects
from mesh.bus.blob_cache import BlobCache, Writing
from mesh.bus.errors import MESSAGE_NOT_FOUND, ApiError, DamagedBlob
from mesh.bus.pages import read_many
from mesh.errors import BusUnavailable, NotFound, QueztlError
from mesh.messages import BlobRef

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message

CHUNK_BYTES = 128 * 1024
#: Chunks on their way at once: 4 MiB in either direction.
WINDOW = 32
#: An upload that failed waits this long for chunks it has sent, before it removes them.
ABANDON_WITHIN_S = 5.0
#: A window of chunks that is read may take so long.
BATCH_WITHIN_S = 15.0


def new_blob_id(keep: bool = False) -> str:
    """A fresh blob id; `b-k…` when it is kept until deleted."""
    return f"b-{'k' if keep else 't'}{secrets.token_hex(8)}"


def bucket_of(blob: str) -> str:
    """The bucket a blob id lies in."""
    return subjects.BLOBS_KEPT if blob.startswith("b-k") else subjects.BLOBS


def _meta_subject(blob: str) -> str:
    return f"$O.{bucket_of(blob)}.M.{base64.urlsafe_b64encode(blob.encode()).decode()}"


def _chunk_subject(bucket: str, nuid: str) -> str:
    return f"$O.{bucket}.C.{nuid}"


class Objects:
    """The blobs of the mesh. Methods raise BusUnavailable when the bus does not answer."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.blob_cache: BlobCache | None = None
        """Where copies are kept; None: nowhere."""

    async def put(
        self,
        source: bytes | Path | AsyncIterator[bytes],
        content_type: str = "application/octet-stream",
        keep: bool = False,
    ) -> BlobRef:
        """Store the bytes; returns their reference. Raises: StorageFull; a failed upload leaves nothing."""
        blob = new_blob_id(keep)
        digest, size = hashlib.sha256(), 0
        upload = _Upload(self._bus, bucket_of(blob))
        with self._copying() as copy:
            try:
                async for chunk in _chunks(source):
                    digest.update(chunk)
                    size += len(chunk)
                    await upload.add(chunk)
                    if copy:
                        await copy.add(chunk)
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
                    "digest": _named(digest),
                }
                rollup = {"Nats-Rollup": "sub"}
                await self._bus.store(_meta_subject(blob), json.dumps(meta).encode(), headers=rollup, resend=True)
            except BaseException:
                await upload.abandon()
                raise
            if copy:
                await copy.keep(meta["digest"])
        return BlobRef(blob=blob, size=size, content_type=content_type)

    @contextmanager
    def _copying(self) -> Iterator[Writing | None]:
        if self.blob_cache is None:
            yield None
            return
        with closing(self.blob_cache.write()) as copy:
            yield copy

    async def info(self, blob: str) -> BlobRef:
        """Size and type of a blob. Raises: NotFound."""
        return _reference(blob, await self._meta(blob))

    async def open(self, blob: str) -> AsyncIterator[bytes]:
        """The bytes of a blob, chunk by chunk, checked against their digest.

        Raises: NotFound; DamagedBlob, also when it went while it was read; BusUnavailable.
        """
        return (await self.look(blob))[1]

    async def look(self, blob: str) -> tuple[BlobRef, AsyncIterator[bytes]]:
        """Size and type of a blob, and its bytes as of `open`. Raises: the same."""
        meta = await self._meta(blob)
        return _reference(blob, meta), self._from_anywhere(blob, meta)

    async def _from_anywhere(self, blob: str, meta: dict[str, Any]) -> AsyncIterator[bytes]:
        try:
            file = found.open("rb") if (found := self._find(meta)) else None
        except OSError:  # it went just now
            file = None
        async for chunk in _chunks_of(file) if file else self._read(blob, meta):
            yield chunk

    async def fetch(self, blob: str, target: Path) -> BlobRef:
        """Write a blob into the file `target`, a copy of its own. Raises: as `open`."""
        meta = await self._meta(blob)
        if (found := self._find(meta)) is not None:
            try:
                await asyncio.to_thread(shutil.copyfile, found, target)
                return _reference(blob, meta)
            except OSError:  # it went just now
                pass
        with target.open("wb") as file, self._copying() as copy:
            async for chunk in self._read(blob, meta):
                file.write(chunk)
                if copy:
                    await copy.add(chunk)
            if copy:
                await copy.keep(str(meta.get("digest")))
        return _reference(blob, meta)

    def _find(self, meta: dict[str, Any]) -> Path | None:
        return self.blob_cache.find(str(meta.get("digest")), int(meta.get("size", -1))) if self.blob_cache else None

    async def delete(self, blob: str) -> None:
        """Remove a blob; one that is not there is no error."""
        try:
            meta = await self._meta(blob)
        except NotFound:
            return
        await _purge(self._bus, bucket_of(blob), _chunk_subject(bucket_of(blob), meta["nuid"]))
        await _purge(self._bus, bucket_of(blob), _meta_subject(blob))

    async def _meta(self, blob: str) -> dict[str, Any]:
        try:
            answer = await self._bus.api(f"STREAM.MSG.GET.OBJ_{bucket_of(blob)}", {"last_by_subj": _meta_subject(blob)})
        except ApiError as error:
            if error.error_code == MESSAGE_NOT_FOUND:
                raise NotFound(f"there is no blob {blob}; upload it (again) and use the new id") from None
            raise
        meta: dict[str, Any] = json.loads(base64.b64decode(answer["message"].get("data", "")) or b"{}")
        if not meta or meta.get("deleted"):
            raise NotFound(f"there is no blob {blob}; upload it (again) and use the new id")
        return meta

    async def _read(self, blob: str, meta: dict[str, Any]) -> AsyncIterator[bytes]:
        digest, sequence, left = hashlib.sha256(), 1, int(meta.get("chunks", 0))
        while left > 0:
            batch = await self._batch(bucket_of(blob), _chunk_subject(bucket_of(blob), meta["nuid"]), sequence, left)
            if not batch:
                raise DamagedBlob(f"blob {blob} is incomplete; upload it again")
            for message in batch:
                digest.update(message.data)
                yield message.data
            left -= len(batch)
            sequence = int((batch[-1].headers or {})["Nats-Sequence"]) + 1
        if _named(digest) != meta.get("digest"):
            raise DamagedBlob(f"blob {blob} is damaged: its digest does not match; upload it again")

    async def _batch(self, bucket: str, subject: str, sequence: int, left: int) -> list[Message]:
        """Up to WINDOW chunks from `sequence` on, with one request."""
        want = {"batch": min(left, WINDOW), "seq": sequence, "next_by_subj": subject}
        got, end = await read_many(self._bus, f"OBJ_{bucket}", want, BATCH_WITHIN_S)
        if not end:
            raise BusUnavailable("the bus did not deliver a blob in time; try again shortly")
        return got


def _named(digest: hashlib._Hash) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(digest.digest()).decode()}"


async def _chunks_of(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while chunk := _read_file(file):
            yield chunk


def _reference(blob: str, meta: dict[str, Any]) -> BlobRef:
    kind = (meta.get("headers") or {}).get("Content-Type") or ["application/octet-stream"]
    return BlobRef(blob=blob, size=int(meta.get("size", 0)), content_type=kind[0])


class _Upload:
    """The chunks of one object on their way, up to WINDOW at once; readers take them in the order of the stream."""

    def __init__(self, bus: Bus, bucket: str) -> None:
        self._bus, self._bucket = bus, bucket
        self._flying: set[asyncio.Task[None]] = set()
        self._begin()

    def _begin(self) -> None:
        self.nuid, self.sequences, self._epoch = secrets.token_hex(11), [], self._bus.epoch

    async def add(self, chunk: bytes) -> None:
        """Send one more chunk. Raises: StorageFull, BusUnavailable."""
        if len(self._flying) >= WINDOW:
            done, self._flying = await asyncio.wait(self._flying, return_when=asyncio.FIRST_COMPLETED)
            _succeeded(done)
        self.sequences.append(0)
        self._flying.add(asyncio.create_task(self._store(len(self.sequences) - 1, chunk), name="blob chunk"))

    async def _store(self, number: int, chunk: bytes) -> None:
        subject, sequences = _chunk_subject(self._bucket, self.nuid), self.sequences
        sequences[number] = await self._bus.store(subject, chunk, msg_id=f"{self.nuid}.{number}", timeout_s=30)

    async def finish(self) -> None:
        """Wait until all chunks are stored, once each and in order. Raises: StorageFull, BusUnavailable."""
        await self._landed()
        while self._epoch != self._bus.epoch or self.sequences != sorted(self.sequences):
            # The connection broke, and what was sent again lies behind later chunks, or twice: lay them out anew.
            old, sequences = self.nuid, self.sequences
            self._begin()
            for sequence in sequences:
                answer = await self._bus.api(f"STREAM.MSG.GET.OBJ_{self._bucket}", {"seq": sequence})
                await self.add(base64.b64decode(answer["message"]["data"]))
            await self._landed()
            await _purge(self._bus, self._bucket, _chunk_subject(self._bucket, old))

    async def _landed(self) -> None:
        if self._flying:
            await asyncio.wait(self._flying)  # all of them: a purge must not overtake one that is still on its way
        flying, self._flying = self._flying, set()
        _succeeded(flying)

    async def abandon(self) -> None:
        """Leave nothing behind; what can't be removed goes with the bucket's own lifetime at the latest."""
        if self._flying:
            # A purge may overtake chunks that were sent and are not stored yet.
            _, late = await asyncio.wait(self._flying, timeout=ABANDON_WITHIN_S)
            for one in late:
                one.cancel()
            await asyncio.gather(*self._flying, return_exceptions=True)
        await _purge(self._bus, self._bucket, _chunk_subject(self._bucket, self.nuid))


def _succeeded(tasks: set[asyncio.Task[None]]) -> None:
    """Raises: what the first of the failed ones raised. Each is asked, or the loop says that nobody cared."""
    failed = [error for one in tasks if (error := one.exception()) is not None]
    if failed:
        raise failed[0]


async def _purge(bus: Bus, bucket: str, subject: str) -> None:
    try:
        await bus.api(f"STREAM.PURGE.OBJ_{bucket}", {"filter": subject})
    except QueztlError as error:
        if not isinstance(error, (ApiError, BusUnavailable)):
            raise


async def _chunks(source: bytes | Path | AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`source` cut into pieces of exactly CHUNK_BYTES (the last one may be shorter)."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source)
        for start in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[start : start + CHUNK_BYTES])
    elif isinstance(source, Path):
        async for chunk in _chunks_of(source.open("rb")):
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
