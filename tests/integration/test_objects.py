"""Blobs: read as they were stored, nothing left of failed uploads, readable by other NATS clients."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator

import pytest

from mesh import subjects
from mesh.bus import blob_upload
from mesh.bus.objects import CHUNK_BYTES
from mesh.client import Mesh
from mesh.errors import BusUnavailable, Conflict, NotFound, StorageFull
from mesh.tasks import blob_refs


async def read(bus, blob: str) -> bytes:
    return b"".join([chunk async for chunk in await bus.objects.open(blob)])


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def messages(bus, bucket: str = subjects.BLOBS) -> int:
    return (await bus.api(f"STREAM.INFO.OBJ_{bucket}"))["state"]["messages"]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 50 * CHUNK_BYTES - 7])
async def test_a_blob_is_read_as_it_was_stored(bus_server, tmp_path, size) -> None:
    bus, data = await bus_server.connect("a"), os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    for source in (data, tmp_path / "file", in_pieces(data, 100_001)):
        ref = await bus.objects.put(source, "image/png")
        assert (ref.size, ref.content_type, ref.blob[:3]) == (size, "image/png", "b-t")
        assert await read(bus, ref.blob) == data
        assert await bus.objects.info(ref.blob) == ref
    await bus.objects.fetch(ref.blob, tmp_path / "fetched")
    assert (tmp_path / "fetched").read_bytes() == data


async def test_a_deleted_blob_is_gone_and_so_are_its_bytes(bus_server) -> None:
    bus = await bus_server.connect("a")
    ref = await bus.objects.put(b"x" * 300_000, keep=True)
    assert ref.blob.startswith("b-k") and await messages(bus, subjects.BLOBS_KEPT) == 4
    await bus.objects.delete(ref.blob)
    await bus.objects.delete(ref.blob)
    assert await messages(bus, subjects.BLOBS_KEPT) == 0
    for look in (bus.objects.info(ref.blob), bus.objects.open(ref.blob)):
        with pytest.raises(NotFound, match=ref.blob):
            await look


async def test_a_failed_upload_leaves_nothing(bus_server) -> None:
    bus = await bus_server.connect("a")

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        raise ConnectionResetError("the uploader went away")

    with pytest.raises(ConnectionResetError):
        await bus.objects.put(broken())
    assert await messages(bus) == 0


async def test_a_cancelled_upload_leaves_nothing(bus_server) -> None:
    bus, started, never = await bus_server.connect("a"), asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000
        started.set()
        await never.wait()

    upload = asyncio.create_task(bus.objects.put(slow()))
    await started.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await messages(bus) == 0


async def test_a_full_store_refuses_an_upload_and_keeps_its_blobs(bus_server) -> None:
    bus = await bus_server.connect("a")
    kept = await bus.objects.put(b"kept" * 1000)
    stream = f"OBJ_{subjects.BLOBS}"
    config = (await bus.api(f"STREAM.INFO.{stream}"))["config"] | {"max_bytes": 1 << 20}
    await bus.api(f"STREAM.UPDATE.{stream}", config)
    with pytest.raises(StorageFull):
        await bus.objects.put(b"x" * (2 << 20))
    assert await messages(bus) == 2 and await read(bus, kept.blob) == b"kept" * 1000


async def test_damage_is_detected(bus_server) -> None:
    bus = await bus_server.connect("a")
    ref = await bus.objects.put(os.urandom(3 * CHUNK_BYTES))
    stream = f"OBJ_{subjects.BLOBS}"
    await bus.api(f"STREAM.MSG.DELETE.{stream}", {"seq": 2})
    with pytest.raises(BusUnavailable, match="incomplete"):
        await read(bus, ref.blob)
    chunk = (await bus.api(f"STREAM.MSG.GET.{stream}", {"seq": 1}))["message"]["subject"]
    await bus.store(chunk, os.urandom(CHUNK_BYTES))
    with pytest.raises(BusUnavailable, match="damaged"):
        await read(bus, ref.blob)


async def test_other_nats_clients_read_the_blobs(bus_server) -> None:
    import nats

    bus, data = await bus_server.connect("a"), os.urandom(300_000)
    ref = await bus.objects.put(data, "image/png")
    client = await nats.connect(bus_server.url)
    try:
        store = await client.jetstream().object_store(subjects.BLOBS)
        found = await store.get(ref.blob)
        assert hashlib.sha256(found.data).digest() == hashlib.sha256(data).digest()
        assert found.info.size == len(data) and found.info.headers["Content-Type"] == ["image/png"]
    finally:
        await client.close()


async def test_blobs_survive_a_kill_of_the_server_in_the_middle(bus_server, eventually) -> None:
    bus, data, halfway, go_on = await bus_server.connect("a"), os.urandom(6_000_000), asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[bytes]:
        yield data[:3_000_000]
        halfway.set()
        await go_on.wait()
        yield data[3_000_000:]

    upload = asyncio.create_task(bus.objects.put(source()))
    await halfway.wait()
    bus_server.kill()
    go_on.set()
    await bus_server.start()
    ref = await upload
    assert await read(bus, ref.blob) == data


async def test_a_part_of_a_blob_is_found_among_other_uploads(bus_server) -> None:
    """Three uploads at once, so that their chunks alternate; a part needs few reads, whatever is before it."""
    bus = await bus_server.connect("a")
    contents = [bytes([n]) + os.urandom(40 * CHUNK_BYTES + n) for n in range(3)]

    async def slowly(data: bytes):
        for start in range(0, len(data), CHUNK_BYTES // 2):
            yield data[start : start + CHUNK_BYTES // 2]
            await asyncio.sleep(0)

    blobs = await asyncio.gather(*(bus.objects.put(slowly(data)) for data in contents))
    reads = []
    for data, blob in zip(contents, blobs, strict=True):
        for start, length in (
            (0, 1),
            (CHUNK_BYTES, 5),
            (30 * CHUNK_BYTES - 3, 7),
            (len(data) - 9, 9),
            (5, 3 * CHUNK_BYTES),
        ):
            chunks = [chunk async for chunk in await bus.objects.part(blob.blob, start, length)]
            assert b"".join(chunks) == data[start : start + length]
            reads.append(len(chunks))
    assert max(reads) <= 4


async def test_a_blob_that_a_task_needs_is_not_deleted_and_one_whose_task_ended_is(bus_server) -> None:
    bus = await bus_server.connect("a")
    async with Mesh(bus=bus) as mesh:
        blob = (await mesh.put_blob(b"x" * 1000)).blob
        task = (await mesh.start("echo", {"data": {"blob": blob}})).id
        with pytest.raises(Conflict, match=task):
            await mesh.delete_blob(blob)
        await mesh.cancel(task)
        await blob_refs.release(bus, [blob], task)
        await mesh.delete_blob(blob)
        with pytest.raises(NotFound):
            await mesh.delete_blob(blob)
    assert await messages(bus) == 0
    assert await bus.kv(subjects.KV_BLOB_REFS).keys() == []


@pytest.mark.parametrize("numbered", [True, False])
async def test_a_part_is_right_or_an_error_when_a_chunk_is_lost(bus_server, numbered, monkeypatch) -> None:
    """Without the numbers, as another program stores chunks, those before the part are read and passed over."""
    if not numbered:
        monkeypatch.setattr(blob_upload, "message_id", lambda nuid, number: f"{nuid}-{number}")
    bus = await bus_server.connect("a")
    data = os.urandom(6 * CHUNK_BYTES)
    blob = (await bus.objects.put(data)).blob
    part = [chunk async for chunk in await bus.objects.part(blob, 4 * CHUNK_BYTES + 1, 5)]
    assert b"".join(part) == data[4 * CHUNK_BYTES + 1 :][:5]
    await bus.delete_message(f"OBJ_{subjects.BLOBS}", 4)
    with pytest.raises(BusUnavailable):
        b"".join([chunk async for chunk in await bus.objects.part(blob, 2 * CHUNK_BYTES, 4 * CHUNK_BYTES)])
