"""`Mesh.map` with a real node: how far it reads its payloads, and when it yields results."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.client import Mesh
from tests.nodes import Cluster

WINDOW = 4


@pytest.fixture
async def mesh(tmp_path: Path):
    """A client of one node."""
    async with Cluster(tmp_path) as cluster:
        await cluster.node().start()
        yield await cluster.client()
        cluster.print_logs()


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_result_is_yielded_before_the_next_payload_is_available(mesh: Mesh, ordered: bool) -> None:
    """The source waits until each item is read: a map that reads ahead before it yields would wait for ever."""
    item_read = asyncio.Event()

    async def payloads() -> AsyncIterator[Any]:
        for number in range(5):
            yield {"value": number}
            await item_read.wait()
            item_read.clear()

    found = []
    async with asyncio.timeout(30):
        async for item in mesh.map("echo", payloads(), ordered=ordered, window=WINDOW):
            found.append(item.result["value"])
            item_read.set()
    assert found == list(range(5))


@pytest.mark.parametrize("ordered", [True, False])
async def test_it_never_reads_further_than_its_window(mesh: Mesh, ordered: bool) -> None:
    """Even when every task ends before the next payload is available."""
    read = 0

    async def payloads() -> AsyncIterator[Any]:
        nonlocal read
        for number in range(200):
            read += 1
            yield {"value": number}
            await mesh.bus.flush()  # gives a task time to end

    found = []
    async for item in mesh.map("echo", payloads(), ordered=ordered, window=WINDOW):
        # One more payload may have been read and not submitted yet.
        assert read <= len(found) + WINDOW + 1
        found.append(item.result["value"])
    assert sorted(found) == list(range(200)) and (not ordered or found == sorted(found))


async def test_an_abandoned_map_reads_no_more_payloads(mesh: Mesh) -> None:
    """Its source is cancelled while it waits."""
    ended = asyncio.Event()

    async def payloads() -> AsyncIterator[Any]:
        try:
            yield {"value": 1}
            await asyncio.Event().wait()
        finally:
            ended.set()

    items = mesh.map("echo", payloads(), window=WINDOW)
    assert (await anext(items)).result == {"value": 1}
    await items.aclose()  # pyrefly: ignore[missing-attribute]  `map` is an async generator
    await asyncio.wait_for(ended.wait(), 10)


async def test_an_error_of_the_source_is_raised_by_the_map(mesh: Mesh) -> None:
    async def slow() -> AsyncIterator[Any]:
        yield {"value": 1}
        raise ZeroDivisionError

    def quick() -> Any:
        yield {"value": 1}
        raise ZeroDivisionError

    for source in (slow(), quick()):
        with pytest.raises(ZeroDivisionError):
            async for _ in mesh.map("echo", source):
                pass
    assert [item async for item in mesh.map("echo", [])] == []
    with pytest.raises(ValueError, match="window"):
        await anext(mesh.map("echo", [], window=0))
