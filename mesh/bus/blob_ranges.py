"""Where a chunk of a blob is in its stream, found without reading the chunks before it.

All chunks of a blob have one subject, and each has its number in the message id under which it was stored. Uploads at
the same time interleave; a chunk is found between two others. How many messages follow would tell the number too, but
not at a copy that lags.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from mesh.bus import reserved
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


def message_id(nuid: str, number: int) -> str:
    """The message id of chunk `number` of the upload `nuid`."""
    return f"{nuid}.{number}"


def place_of(chunk: StoredMessage, nuid: str) -> Place | None:
    """The place of a chunk of the upload `nuid`; None when it does not say its number: another program stored it."""
    upload, _, number = chunk.headers.get(reserved.MESSAGE_ID, "").rpartition(".")
    if upload != nuid or not (number.isascii() and number.isdigit()):
        return None
    return Place(chunk.sequence, int(number))
