"""Where a chunk of a blob is in its stream, found without reading the chunks before it.

All chunks of a blob have one subject, and a direct read says how many messages of that subject follow the one it
returns: so it tells the number of a chunk. Uploads at the same time interleave; a chunk is found between two others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from mesh.bus.errors import DamagedBlob
from mesh.bus.replies import StoredMessage


class Place(NamedTuple):
    """A chunk and where it is."""

    sequence: int
    number: int
    """From 0."""


async def find_chunk(probe: Callable[[int], Awaitable[Place]], number: int, first: Place, last: Place) -> Place:
    """The place of chunk `number`, between those of the first and the last chunk.

    `probe(sequence)`: the first chunk from that sequence on. It is called 2 log2(n) times at most for n sequences
    between the two, and once where nothing else was stored between them. Raises: what `probe` raises.
    """
    low, high = first, last
    halve = False
    while low.number < number:
        span, share = high.sequence - low.sequence, (number - low.number) / (high.number - low.number)
        guess = low.sequence + max(1, span // 2 if halve else round(span * share))
        found = await probe(guess)
        halve = not halve
        if found.number <= number:
            low = found
        else:
            high = Place(guess - 1, found.number - 1)  # that chunk is there or before
    return low


def place_of(chunk: StoredMessage, count: int) -> Place:
    """The place of one of the `count` chunks, from a direct read. Raises: DamagedBlob when it can't be one of them."""
    following = chunk.headers.get("Nats-Num-Pending", "")
    if not following.isascii() or not following.isdigit() or int(following) >= count:
        raise DamagedBlob("a blob is damaged, or the bus does not say where its chunks are; upload it again")
    return Place(chunk.sequence, count - 1 - int(following))
