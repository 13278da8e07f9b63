"""Direct reads: many stored messages with one request, from whichever copy of the stream answers first.

A copy that lags may not have the newest messages yet. While the copies elect a leader nobody answers: reads are then
repeated, up to a time limit.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from mesh.bus import reserved
from mesh.bus.connection import Connection
from mesh.bus.replies import StoredMessage, direct_message
from mesh.bus.wire import Message
from mesh.errors import BusUnavailable

#: Messages in one page.
PAGE = 500
#: A request for a page times out after PAGE_S; it is repeated every AGAIN_S while there is no leader, for WITHIN_S.
PAGE_S, AGAIN_S, WITHIN_S = 2.5, 0.25, 5.0
#: The same limits for `read_last_of`.
LAST_S, LAST_AGAIN_S, LAST_WITHIN_S = 3.0, 0.25, 10.0
#: Status of the message that ends a reply: end of batch; nothing found.
_END_OF_BATCH, _NOT_FOUND = "204", "404"


async def read_page(
    connection: Connection, stream: str, subject: str, after: int, count: int = 0, max_bytes: int = 0
) -> tuple[list[StoredMessage], bool]:
    """(the next messages of `stream` on `subject`, wildcards allowed, after sequence `after`; whether there are more).

    At most `count` of them (0: PAGE), no more once they have `max_bytes` (0: no limit). Raises: BusUnavailable.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WITHIN_S
    query: dict[str, Any] = {"batch": count or PAGE, "seq": after + 1, "next_by_subj": subject}
    if max_bytes:
        query["max_bytes"] = max_bytes
    while True:
        found, end = await _read(connection, stream, query, PAGE_S)
        status = end.get("Status")
        if status in (_END_OF_BATCH, _NOT_FOUND):
            more = status == _END_OF_BATCH and int(end.get(reserved.PENDING) or 0) > 0
            return [direct_message(message) for message in found], more
        if loop.time() + AGAIN_S > deadline:
            name = stream.removeprefix("KV_")  # users know a bucket by its own name
            if status is None:
                raise BusUnavailable(f"the bus did not list {name} in time")
            raise BusUnavailable(f"the bus can't list {name} right now (status {status})")
        await asyncio.sleep(AGAIN_S)


async def read_batch(
    connection: Connection, stream: str, subject: str, start: int, count: int, timeout_s: float
) -> list[StoredMessage]:
    """Up to `count` messages of `stream` on `subject`, from sequence `start` on. Raises: BusUnavailable."""
    query = {"batch": count, "seq": start, "next_by_subj": subject}
    found, end = await _read(connection, stream, query, timeout_s)
    if not end:
        name = stream.removeprefix("OBJ_")
        raise BusUnavailable(f"the bus did not deliver messages of {name} in time; try again shortly")
    return [direct_message(message) for message in found]


async def read_last_of(connection: Connection, stream: str, subjects: Sequence[str]) -> list[bytes]:
    """The last message on each of `subjects`; those without a message, or with an empty one, are absent.

    Raises: BusUnavailable.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + LAST_WITHIN_S
    while True:
        found, end = await _read(connection, stream, {"multi_last": list(subjects)}, LAST_S)
        if end.get("Status") in (_END_OF_BATCH, _NOT_FOUND):
            return [message.data for message in found if message.data]
        # The copies are electing a leader, or the link to the one that was asked is bad.
        if clock() + LAST_AGAIN_S > deadline:
            raise BusUnavailable("the bus did not answer in time; try again shortly")
        await asyncio.sleep(LAST_AGAIN_S)


async def _read(
    connection: Connection, stream: str, query: Mapping[str, Any], timeout_s: float
) -> tuple[list[Message], Mapping[str, str]]:
    """(the messages of one reply, the headers of the message that ended it).

    When the reply does not end within `timeout_s` the headers are empty: a copy that lost its leader never ends it.
    """
    found: list[Message] = []
    done: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()

    def on_message(message: Message) -> None:
        headers = message.headers
        if not headers.get("Status"):
            found.append(message)
        elif not done.done():
            done.set_result(headers)

    # No flush is needed: the server reads the SUB before the request behind it.
    subscription = await connection.subscribe(inbox := connection.new_inbox(), on_message, wait=False)
    try:
        connection.send(f"$JS.API.DIRECT.GET.{stream}", json.dumps(query).encode(), inbox)
        async with asyncio.timeout(timeout_s):
            return found, await done
    except TimeoutError:
        return found, {}
    finally:
        await subscription.close()
