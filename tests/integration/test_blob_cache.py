"""The blob cache: a node does not fetch a recently used blob from the bus again, and nothing else changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from mesh import subjects
from mesh.bus.blob_cache import MOST_OF_ALL, BlobCache
from mesh.bus.client import Bus
from mesh.bus.objects import CHUNK_BYTES
from mesh.errors import NotFound
from tests.nodes import Cluster

SIZE = 40 * CHUNK_BYTES + 7
ROOM = 100 * 1024 * 1024


class Reads:
    """Counts the requests for chunks on the bus."""

    def __init__(self, bus: Bus) -> None:
        self._bus, self._seen = bus, 0

    async def listen(self) -> Reads:
        await self._bus.subscribe(f"$JS.API.DIRECT.GET.OBJ_{subjects.BLOBS}", lambda _: self._count())
        return self

    def _count(self) -> None:
        self._seen += 1

    async def new(self) -> int:
        """The number of requests since the last call."""
        await self._bus.flush()
        seen, self._seen = self._seen, 0
        return seen


@pytest.fixture
async def reads(bus_server) -> Reads:
    return await Reads(await bus_server.connect("listener")).listen()


@pytest.fixture
async def bus(bus_server, tmp_path: Path) -> Bus:
    """A connection with a blob cache."""
    made = await bus_server.connect("a")
    made.objects.blob_cache = BlobCache(tmp_path / "cache", ROOM)
    return made


async def read(bus: Bus, blob: str) -> bytes:
    return b"".join([chunk async for chunk in await bus.objects.open(blob)])


async def fetched(bus: Bus, blob: str, target: Path) -> bytes:
    await bus.objects.fetch(blob, target)
    return target.read_bytes()


def copies(folder: Path) -> list[int]:
    """The sizes of the cached files."""
    return sorted(file.stat().st_size for file in folder.iterdir())


async def test_a_blob_stored_or_fetched_here_is_read_from_the_cache(bus, bus_server, reads, tmp_path) -> None:
    other, data = await bus_server.connect("b"), os.urandom(SIZE)
    mine = (await bus.objects.put(data[:-5] + b"mine.")).blob
    theirs = (await other.objects.put(data[:-5] + b"yours")).blob
    assert await reads.new() == 0
    assert await fetched(bus, mine, tmp_path / "1") == await read(bus, mine) == data[:-5] + b"mine."
    assert (await bus.objects.look(mine))[0] == await bus.objects.info(mine)
    assert await reads.new() == 0
    assert await fetched(bus, theirs, tmp_path / "2") == data[:-5] + b"yours"
    assert await reads.new() > 0
    assert await fetched(bus, theirs, tmp_path / "3") == await read(bus, theirs) == data[:-5] + b"yours"
    assert await reads.new() == 0


async def test_a_task_that_overwrites_its_input_file_changes_no_other_copy(bus, tmp_path) -> None:
    blob = (await bus.objects.put(b"as it was")).blob
    for name in ("1", "2"):
        assert await fetched(bus, blob, tmp_path / name) == b"as it was"
        (tmp_path / name).write_bytes(b"overwritten")
    assert await read(bus, blob) == b"as it was"


async def test_a_deleted_blob_is_not_found_although_it_is_cached(bus, bus_server, tmp_path) -> None:
    blob = (await bus.objects.put(os.urandom(SIZE))).blob
    await (await bus_server.connect("b")).objects.delete(blob)
    for look in (bus.objects.open(blob), bus.objects.fetch(blob, tmp_path / "file"), bus.objects.look(blob)):
        with pytest.raises(NotFound, match=blob):
            await look


@pytest.mark.parametrize("gone", ["the copies", "the folder"])
async def test_without_cached_copies_the_bus_is_read(bus, reads, tmp_path, gone) -> None:
    first = os.urandom(SIZE)
    blobs = {(await bus.objects.put(first)).blob: first}
    for file in (tmp_path / "cache").iterdir():
        file.unlink()
    if gone == "the folder":
        shutil.rmtree(tmp_path / "cache")
    second = os.urandom(SIZE)
    blobs[(await bus.objects.put(second)).blob] = second
    for blob, data in blobs.items():
        assert await read(bus, blob) == data
        assert await fetched(bus, blob, tmp_path / "file") == data
    assert await reads.new() > 0


async def test_a_failed_upload_leaves_no_copy(bus, tmp_path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * SIZE
        raise ConnectionResetError("the uploader went away")

    with pytest.raises(ConnectionResetError):
        await bus.objects.put(broken())
    assert copies(tmp_path / "cache") == []


async def test_the_least_recently_used_blob_is_evicted_at_the_size_limit(bus_server, reads, tmp_path) -> None:
    bus = await bus_server.connect("a")
    bus.objects.blob_cache = BlobCache(tmp_path / "cache", 3 * 4 * SIZE)
    blobs = [(await bus.objects.put(os.urandom(SIZE))).blob for _ in range(12)]
    await read(bus, blobs[0])  # used, so that the second is now the least recently used
    large = await bus.objects.put(os.urandom(int(12 * SIZE * MOST_OF_ALL) + 1))
    assert copies(tmp_path / "cache") == [SIZE] * 12
    blobs.append((await bus.objects.put(os.urandom(SIZE))).blob)
    assert copies(tmp_path / "cache") == [SIZE] * 12 and await reads.new() == 0
    for blob in (blobs[0], *blobs[2:]):
        await read(bus, blob)
    assert await reads.new() == 0
    for blob in (blobs[1], large.blob):
        await read(bus, blob)
        assert await reads.new() > 0, (
            "the least recently used blob is evicted, and one of over a quarter of the limit is not cached"
        )
    bus.objects.blob_cache.close()
    assert not (tmp_path / "cache").exists()


async def test_copies_of_an_earlier_process_are_removed(tmp_path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "1").write_bytes(b"half of a file, after a power cut")
    BlobCache(tmp_path / "cache")
    assert copies(tmp_path / "cache") == []


async def test_a_second_task_with_a_blob_reads_it_from_the_cache_of_its_node(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        node = await cluster.node().start()
        mesh = await cluster.client()
        reads = await Reads(mesh.bus).listen()
        picture = cv2.imencode(".png", np.random.default_rng(1).integers(0, 256, (500, 500, 3), np.uint8))[1].tobytes()
        image = {"image": {"blob": (await mesh.put_blob(picture)).blob}, "width": 3}
        small = await mesh.submit("image_processing", image, wait_s=60)
        assert await reads.new() > 0
        assert await mesh.submit("image_processing", image, wait_s=60) == small
        assert await reads.new() == 0
        assert copies(node.folder / "blob-cache") == [len(picture)]
        await node.terminate()
        assert not (node.folder / "blob-cache").exists()
