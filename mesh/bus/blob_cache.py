"""A cache of blobs on this machine's disk, one file each: a cached blob need not cross the bus again.

A blob never changes, so a copy is as good as the original; it is found by digest and size. The total size is limited,
and the least recently used copy is evicted first. The cache does not outlive its process: after a power cut half a file
would pass for a whole one.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import IO, NamedTuple

log = logging.getLogger(__name__)

#: Size limit of the cache, and the largest share of the disk's free space that it takes.
MOST_BYTES, MOST_OF_FREE = 1024 * 1024 * 1024, 0.1
#: The largest share of the cache that one blob takes.
MOST_OF_ALL = 0.25
#: Bytes per write. Writes run in a thread: a slow disk must not hold up the heartbeats.
WRITE_BYTES = 4 * 1024 * 1024


class _Copy(NamedTuple):
    file: Path
    size: int


class BlobCache:
    """The copies. Nothing here fails for its caller: what can't be cached or found is read from the bus."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._number = folder, 0
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._limit = self._used = 0
        self.close()
        try:
            folder.mkdir(parents=True)
            self._limit = min(most_bytes, int(shutil.disk_usage(folder).free * MOST_OF_FREE))
        except OSError as error:
            log.info("the blob cache is off: %s", error)

    def find(self, digest: str, size: int) -> Path | None:
        """The copy of that blob, if there is one. It may be evicted at any time; the reader then uses the bus."""
        copy = self._copies.get(digest)
        if copy is None or copy.size != size:
            return None
        self._copies.move_to_end(digest)
        return copy.file

    def write(self) -> CacheWriter:
        """A writer for one new copy, which is kept when `keep` is called before `close`."""
        self._number += 1
        return CacheWriter(self, self._folder / str(self._number), int(self._limit * MOST_OF_ALL))

    def close(self) -> None:
        """Remove all copies."""
        self._copies.clear()
        self._used = 0
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, digest: str, file: Path, size: int) -> None:
        """Take a complete copy into the cache, and evict others until all fit."""
        self._remove(self._copies.pop(digest, None))
        self._copies[digest], self._used = _Copy(file, size), self._used + size
        while self._used > self._limit:
            self._remove(self._copies.popitem(last=False)[1])

    def _remove(self, copy: _Copy | None) -> None:
        if copy is not None:
            self._used -= copy.size
            copy.file.unlink(missing_ok=True)


class CacheWriter:
    """Writes one copy, chunk by chunk. A blob that is too large, or a disk that fails, ends it silently."""

    def __init__(self, blob_cache: BlobCache, path: Path, most_bytes: int) -> None:
        self._blob_cache, self._path, self._most = blob_cache, path, most_bytes
        self._file: IO[bytes] | None = None
        self._buffer: list[bytes] = []
        self._buffered = self._size = 0
        self._given_up = False

    async def add(self, chunk: bytes) -> None:
        """Append one chunk."""
        self._size += len(chunk)
        if self._given_up or self._size > self._most:
            self._give_up()
            return
        self._buffer.append(chunk)
        self._buffered += len(chunk)
        if self._buffered >= WRITE_BYTES:
            await self._write()

    async def keep(self, digest: str) -> None:
        """Complete the copy."""
        await self._write()
        if self._file is not None and not self._given_up:
            self._file.close()
            self._file = None
            self._blob_cache.add(digest, self._path, self._size)

    def close(self) -> None:
        """Remove what was written, unless it was kept."""
        if self._file is not None:
            self._give_up()

    async def _write(self) -> None:
        chunks = self._buffer.copy()
        self._buffer.clear()
        self._buffered = 0
        try:
            if not self._given_up:
                await asyncio.to_thread(self._append, chunks)
        except OSError as error:
            log.info("a blob is not cached: %s", error)
            self._give_up()

    def _append(self, chunks: list[bytes]) -> None:
        if self._file is None:
            self._file = self._path.open("wb", buffering=0)
        for chunk in chunks:
            self._file.write(chunk)

    def _give_up(self) -> None:
        self._given_up = True
        self._buffer.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)
