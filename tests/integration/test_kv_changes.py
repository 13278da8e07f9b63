"""Reads of a bucket by pages and by revision: more than 1,024 keys, deletions, concurrent writes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial

from mesh import messages, subjects
from mesh.bus import pages
from mesh.config import LOCAL
from mesh.membership.registry import Registry
from mesh.messages import NodeRecord


async def test_more_keys_than_one_page_are_all_listed(bus_server) -> None:
    kv = (await bus_server.connect("one")).kv(subjects.KV_NODES)
    await asyncio.gather(*(kv.put(f"n{number}", b"x") for number in range(1100)))
    assert {entry.key for entry in await kv.entries()} == {f"n{number}" for number in range(1100)}


async def test_changes_are_the_writes_since_a_revision_deletions_included(bus_server) -> None:
    kv = (await bus_server.connect("one")).kv(subjects.KV_NODES)
    assert await kv.changes() == []
    await kv.put("a", b"1")
    await kv.put("b", b"1")
    first = await kv.changes()
    assert [(entry.key, entry.value) for entry in first] == [("a", b"1"), ("b", b"1")]
    seen = first[-1].revision
    assert await kv.changes(seen) == []
    last = await kv.put("a", b"2")
    await kv.delete("b")
    found = await kv.changes(seen)
    assert [(entry.key, entry.value) for entry in found] == [("a", b"2"), ("b", b"")]
    assert found[0].revision == last
    assert [entry.key for entry in await kv.entries()] == ["a"]


async def test_a_key_written_again_between_two_pages_is_listed_once(bus_server, monkeypatch) -> None:
    monkeypatch.setattr("mesh.bus.kv.read_page", partial(pages.read_page, count=2))
    kv = (await bus_server.connect("one")).kv(subjects.KV_NODES)
    for key in "abcde":
        await kv.put(key, b"1")
    read = kv._page

    async def read_and_write(after: int, under: str):
        page = await read(after, under)
        if not after:
            await kv.put("a", b"2")
        return page

    monkeypatch.setattr(kv, "_page", read_and_write)
    assert [(entry.key, entry.value) for entry in await kv.changes()] == [
        ("b", b"1"), ("c", b"1"), ("d", b"1"), ("e", b"1"), ("a", b"2"),
    ]  # fmt: skip


async def test_a_registry_reads_all_records_once_and_then_only_new_ones(bus_server, eventually: Callable) -> None:
    bus, spy = await bus_server.connect("me/1"), await bus_server.connect("spy")
    kv = spy.kv(subjects.KV_NODES)
    asked: list[int] = []
    await spy.subscribe("$JS.API.DIRECT.GET.KV_nodes", lambda message: asked.append(json.loads(message.data)["seq"]))

    async def put(node: str) -> int:
        return await kv.put(node, messages.encode(NodeRecord(id=node, name=node, incarnation="1")))

    last = max([await put(f"n{number}") for number in range(5)])
    registry = Registry(bus, "me", LOCAL)
    await registry.start()
    running = asyncio.create_task(registry.run())
    await put("late")
    await eventually(lambda: registry.is_present("late", "1"))
    await kv.delete("n0")
    await registry.catch_up()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await registry.close()
    assert asked[0] == 1 and len(asked) > 1
    assert min(asked[1:]) == last + 1
