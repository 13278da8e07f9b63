"""`Mesh.map` against a real node: what it reads of its payloads, and when it tells what has ended."""

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
async def test_what_has_ended_is_told_while_the_next_payload_is_not_there_yet(mesh: Mesh, ordered: bool) -> None:
    """A source that waits for each item to be read: a map that reads on before it tells would wait for ever."""
    told = asyncio.Event()

    async def payloads() -> AsyncIterator[Any]:
        for number in range(5):
            yield {"value": number}
            await told.wait()
            told.clear()

    found = []
    async with asyncio.timeout(30):
        async for item in mesh.map("echo", payloads(), ordered=ordered, window=WINDOW):
            found.append(item.result["value"])
            told.set()
    assert found == list(range(5))


@pytest.mark.parametrize("ordered", [True, False])
async def test_it_never_reads_further_than_its_window(mesh: Mesh, ordered: bool) -> None:
    """Though every task ends before the next payload comes."""
    read = 0

    async def payloads() -> AsyncIterator[Any]:
        nonlocal read
        for number in range(200):
            read += 1
            yield {"value": number}
            await mesh.bus.flush()  # time enough for a task to end

    found = []
    async for item in mesh.map("echo", payloads(), ordered=ordered, window=WINDOW):
        # One more may have been asked for, and not sent yet.
        assert read <= len(found) + WINDOW + 1
        found.append(item.result["value"])
    assert sorted(found) == list(range(200)) and (not ordered or found == sorted(found))


async def test_a_map_that_is_left_asks_for_no_more(mesh: Mesh) -> None:
    """The source is told, by cancellation, while it waits."""
    ended = asyncio.Event()

    async def payloads() -> AsyncIterator[Any]:
        try:
            yield {"value": 1}
            await asyncio.Event().wait()
        finally:
            ended.set()

    items = mesh.map("echo", payloads(), window=WINDOW)
    assert (await anext(items)).result == {"value": 1}
    await items.aclose()  # type: ignore[attr-defined]
    await asyncio.wait_for(ended.wait(), 10)


async def test_an_error_of_the_source_is_the_maps(mesh: Mesh) -> None:
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
