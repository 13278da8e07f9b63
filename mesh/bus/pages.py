"""Reading a stream page by page: what it holds after a sequence, by subject, from whichever copy answers first.

A copy that lags may not know of the newest yet. While the copies elect who leads, nobody answers: a page is asked for
again, for as long as an answer may take.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mesh.errors import BusUnavailable

if TYPE_CHECKING:
    from mesh.bus.client import Bus, Message

#: Messages read with one request.
PAGE = 500
#: A page may take so long, seconds; then, or so soon when nobody leads, it is asked for again, for as long as this.
PAGE_S, AGAIN_S, WITHIN_S = 2.5, 0.25, 5.0


class Stored(NamedTuple):
    """A message as its stream holds it."""

    subject: str
    data: bytes
    headers: Mapping[str, Any]
    sequence: int


async def read_page(bus: Bus, stream: str, subject: str, after: int) -> tuple[list[Stored], bool]:
    """(the next messages of `stream` on `subject`, wildcards allowed, after sequence `after`; whether there are more).

    Raises: BusUnavailable.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WITHIN_S
    while True:
        found, end = await _ask(bus, stream, subject, after)
        status = end.get("Status")
        if status in ("204", "404"):
            return found, status == "204" and int(end.get("Nats-Num-Pending") or 0) > 0
        if loop.time() + AGAIN_S > deadline:
            name = stream.removeprefix("KV_")  # people know a bucket by its own name
            if status is None:
                raise BusUnavailable(f"the bus did not list {name} in time")
            raise BusUnavailable(f"the bus can't list {name} right now (status {status})")
        await asyncio.sleep(AGAIN_S)


async def _ask(bus: Bus, stream: str, subject: str, after: int) -> tuple[list[Stored], Mapping[str, Any]]:
    """(the messages of one answer, the headers it ended with; none: it did not end)"""
    want = {"batch": PAGE, "seq": after + 1, "next_by_subj": subject}
    # A copy that lost its leader meanwhile never answers what it was asked then.
    found, end = await read_many(bus, stream, want, PAGE_S)
    stored = [_stored(one.data, one.headers or {}) for one in found] if end else []
    return stored, end


def _stored(data: bytes, headers: Mapping[str, Any]) -> Stored:
    return Stored(headers["Nats-Subject"], data, headers, int(headers["Nats-Sequence"]))


async def read_many(
    bus: Bus, stream: str, want: Mapping[str, Any], within_s: float
) -> tuple[list[Message], Mapping[str, Any]]:
    """(what one direct read of many brought, the headers it ended with; none: it did not end `within_s`)"""
    found: list[Message] = []
    done: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()

    def on_message(message: Message) -> None:
        headers: Mapping[str, Any] = message.headers or {}
        if not headers.get("Status"):
            found.append(message)
        elif not done.done():
            done.set_result(headers)

    # Nothing to wait for: the server learns of the inbox before it reads the question behind it.
    subscription = await bus.subscribe(box := bus.new_inbox(), on_message, wait=False)
    try:
        bus.send(f"$JS.API.DIRECT.GET.{stream}", json.dumps(want).encode(), box)
        async with asyncio.timeout(within_s):
            return found, await done
    except TimeoutError:
        return found, {}
    finally:
        await subscription.close()
