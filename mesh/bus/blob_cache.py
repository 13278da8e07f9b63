"""Blobs this process has had in hand lately, a file each: what lies here need not cross the bus again.

A blob never changes, so a copy is as good as the original, found by digest and size. So much is kept in all, the
longest unused goes first, and all of it goes with the process: half a file after a power cut would pass for a whole
one.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import OrderedDict
from pathlib import Path
from typing import IO, NamedTuple

log = logging.getLogger(__name__)

#: Kept in all: at most so much, and at most this share of what the disk had free.
MOST_BYTES, MOST_OF_FREE = 1024 * 1024 * 1024, 0.1
#: One blob takes this share of it at most.
MOST_OF_ALL = 0.25
#: Written at once, in a thread: a disk that is slow must not hold up the heartbeats.
WRITE_BYTES = 4 * 1024 * 1024


class _Copy(NamedTuple):
    file: Path
    size: int


class BlobCache:
    """The copies. Nothing here ever fails for its caller: what can't be kept or found comes by the bus."""

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._numbers = folder, 0
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._room = self._used = 0
        self.close()
        try:
            folder.mkdir(parents=True)
            self._room = min(most_bytes, int(shutil.disk_usage(folder).free * MOST_OF_FREE))
        except OSError as error:
            log.info("blobs are not kept near: %s", error)

    def find(self, digest: str, size: int) -> Path | None:
        """The copy of that blob, if there is one; it may go at any time, its reader then takes the bus."""
        copy = self._copies.get(digest)
        if copy is None or copy.size != size:
            return None
        self._copies.move_to_end(digest)
        return copy.file

    def write(self) -> Writing:
        """A new copy, kept when `keep` is called before it is closed."""
        self._numbers += 1
        return Writing(self, self._folder / str(self._numbers), int(self._room * MOST_OF_ALL))

    def close(self) -> None:
        """Forget everything, and give the room back."""
        self._copies.clear()
        self._used = 0
        shutil.rmtree(self._folder, ignore_errors=True)

    def _add(self, digest: str, file: Path, size: int) -> None:
        self._drop(self._copies.pop(digest, None))
        self._copies[digest], self._used = _Copy(file, size), self._used + size
        while self._used > self._room:
            self._drop(self._copies.popitem(last=False)[1])

    def _drop(self, copy: _Copy | None) -> None:
        if copy is not None:
            self._used -= copy.size
            copy.file.unlink(missing_ok=True)


class Writing:
    """A copy that is being written, a blob's chunks one after the other."""

    def __init__(self, blob_cache: BlobCache, path: Path, most_bytes: int) -> None:
        self._blob_cache, self._path, self._most = blob_cache, path, most_bytes
        self._file: IO[bytes] | None = None
        self._held: list[bytes] = []
        self._held_bytes = self._size = 0
        self._given_up = False

    async def add(self, chunk: bytes) -> None:
        """One more chunk."""
        self._size += len(chunk)
        if self._given_up or self._size > self._most:
            self._give_up()
            return
        self._held.append(chunk)
        self._held_bytes += len(chunk)
        if self._held_bytes >= WRITE_BYTES:
            await self._write()

    async def keep(self, digest: str) -> None:
        """That was all of it."""
        await self._write()
        if self._file is not None and not self._given_up:
            self._file.close()
            self._file = None
            self._blob_cache._add(digest, self._path, self._size)

    def close(self) -> None:
        """Remove what was not kept."""
        if self._file is not None:
            self._give_up()

    async def _write(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        try:
            if not self._given_up:
                await asyncio.to_thread(self._append, held)
        except OSError as error:
            log.info("a blob is not kept near: %s", error)
            self._give_up()

    def _append(self, chunks: list[bytes]) -> None:
        if self._file is None:
            self._file = self._path.open("wb", buffering=0)
        for chunk in chunks:
            self._file.write(chunk)

    def _give_up(self) -> None:
        self._given_up = True
        self._held.clear()
        if self._file is not None:
            self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)
