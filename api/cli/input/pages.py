"""Lists that a node answers in pages, read as one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
#: `read(count, after)`: at most `count` items after a cursor, and the cursor of the next page, "" at the end.
ReadPage = Callable[[int, str], Awaitable[tuple[Sequence[Item], str]]]


async def collect(read: ReadPage[Item], most: int, limit: int | None, after: str) -> tuple[list[Item], str]:
    """(up to `limit` items, None for all; the cursor of what follows, "" at the end). `most`: the largest page."""
    found: list[Item] = []
    while True:
        items, after = await read(most if limit is None else min(most, limit - len(found)), after)
        found += items
        if not after or (limit is not None and len(found) >= limit):
            return found, after
